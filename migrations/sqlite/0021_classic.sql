-- The newest classic certificate of each node, beside that of node_certificates.

CREATE TABLE classic_certificates (
    device_id   TEXT   NOT NULL PRIMARY KEY REFERENCES devices (id),
    serial      TEXT   NOT NULL,  -- hex
    issued_at   BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    certificate BLOB   NOT NULL   -- DER
);
