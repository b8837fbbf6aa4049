-- Accepted telemetry in runs: batches of a device that follow each other, with one leaf where the run begins and one
-- where it is sealed. Until then its batches are rows; then they are packed together, since each is much like the one before.

CREATE TABLE telemetry_runs (
    leaf           BIGINT NOT NULL PRIMARY KEY REFERENCES audit (leaf),  -- its first batch was taken in with it
    device_id      TEXT   NOT NULL REFERENCES devices (id),
    state_version  BIGINT NOT NULL,                -- that all of it was accepted on
    location       TEXT   NOT NULL,                -- where the device says it was, all the while
    stage          BIGINT NOT NULL,                -- 0: it goes on; 1: it has ended; 2: it is packed
    first_sequence BIGINT NOT NULL,
    batches        BIGINT NOT NULL,
    items          BIGINT NOT NULL,
    first_at       BIGINT NOT NULL,
    last_at        BIGINT NOT NULL,
    bytes          BIGINT NOT NULL,                -- of statements, signatures and payloads as received
    stored         BIGINT NOT NULL,                -- what is kept of these
    packed         BLOB   NOT NULL                 -- empty: its batches are rows
);
CREATE INDEX telemetry_runs_by_device ON telemetry_runs (device_id, leaf);
CREATE INDEX telemetry_runs_by_age ON telemetry_runs (last_at);
CREATE INDEX telemetry_runs_unpacked ON telemetry_runs (stage, first_at) WHERE stage < 2;

-- Batches of runs that are not packed: the exact bytes that were signed.
CREATE TABLE telemetry_batches (
    run         BIGINT NOT NULL REFERENCES telemetry_runs (leaf),
    sequence    BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    items       BIGINT NOT NULL,
    statement   BLOB   NOT NULL,
    signature   BLOB   NOT NULL,
    payload     BLOB   NOT NULL,
    PRIMARY KEY (run, sequence)
);

-- Until now each batch had a leaf: a run of its own.
INSERT INTO telemetry_runs (leaf, device_id, state_version, location, stage, first_sequence, batches, items, first_at,
    last_at, bytes, stored, packed)
SELECT leaf, device_id, 0, location, 1, sequence, 1, items, received_at, received_at,
    LENGTH(statement) + LENGTH(signature) + LENGTH(payload), LENGTH(statement) + LENGTH(signature) + LENGTH(payload), x''
FROM telemetry;
INSERT INTO telemetry_batches (run, sequence, received_at, items, statement, signature, payload)
SELECT leaf, sequence, received_at, items, statement, signature, payload FROM telemetry;
DROP TABLE telemetry;

ALTER TABLE telemetry_positions ADD COLUMN run BIGINT NOT NULL DEFAULT -1;  -- the run that goes on; -1: none does
