-- By what the keys of the data folder are known, so that other keys, or keys made anew, are noticed before they sign.

CREATE TABLE authority (
    id           BIGINT NOT NULL PRIMARY KEY,  -- 1
    root_sha256  TEXT   NOT NULL,              -- of the root's certificate, hex
    issuing_spki TEXT   NOT NULL,              -- SHA-256 of the issuing CA's public key, hex
    ledger_key   TEXT   NOT NULL               -- what verifies heads of the trail
);
