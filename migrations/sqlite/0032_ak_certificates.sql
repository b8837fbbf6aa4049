-- The newest certificate of each device's AK, beside that of node_certificates.

CREATE TABLE ak_certificates (
    device_id   TEXT   NOT NULL PRIMARY KEY REFERENCES devices (id),
    serial      TEXT   NOT NULL,  -- hex
    issued_at   BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    certificate BLOB   NOT NULL   -- DER
);
