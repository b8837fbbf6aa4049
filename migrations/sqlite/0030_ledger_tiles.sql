-- The trail as a Merkle tree: the root of each 256 leaves that are whole, and the last checkpoint of each hour as it was signed.

CREATE TABLE ledger_tiles (
    number BIGINT NOT NULL PRIMARY KEY,  -- leaves number * 256 up to the next
    root   BLOB   NOT NULL
);

CREATE TABLE ledger_checkpoints (
    hour   BIGINT NOT NULL PRIMARY KEY,  -- since 1970
    leaves BIGINT NOT NULL,
    note   TEXT   NOT NULL
);
