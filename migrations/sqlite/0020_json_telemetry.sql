-- Telemetry by the JSON protocol: whose keys sign for whom, and where the chain stands that the server makes of what comes by it.

CREATE TABLE telemetry_keys (
    hash      TEXT   NOT NULL PRIMARY KEY,     -- SHA-256 of its PEM's text: what the protocol names it by
    device_id TEXT   NOT NULL REFERENCES devices (id),
    spki      BLOB   NOT NULL,
    added_at  BIGINT NOT NULL
);
CREATE INDEX telemetry_keys_by_device ON telemetry_keys (device_id);

CREATE TABLE telemetry_json_positions (
    device_id TEXT   NOT NULL PRIMARY KEY REFERENCES devices (id),
    revision  BIGINT NOT NULL,
    position  TEXT   NOT NULL,
    run       BIGINT NOT NULL
);

-- Refusals of both chains of a device stand side by side.
ALTER TABLE telemetry_refusals RENAME TO telemetry_refusals_before;
CREATE TABLE telemetry_refusals (
    device_id TEXT   NOT NULL REFERENCES devices (id),
    chain     BIGINT NOT NULL,                 -- 0: the device's own; 1: what came by the JSON protocol
    sequence  BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    code      TEXT   NOT NULL,
    reason    TEXT   NOT NULL,
    PRIMARY KEY (device_id, chain, sequence)
);
INSERT INTO telemetry_refusals SELECT device_id, 0, sequence, at, code, reason FROM telemetry_refusals_before;
DROP TABLE telemetry_refusals_before;
