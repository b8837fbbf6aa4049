-- Heads of the trail as they were signed, by a key that is not in the database: the last one of each hour.

CREATE TABLE ledger_heads (
    hour   BIGINT NOT NULL PRIMARY KEY,   -- since 1970
    leaves BIGINT NOT NULL,
    note   TEXT   NOT NULL                -- C2SP signed-note
);
