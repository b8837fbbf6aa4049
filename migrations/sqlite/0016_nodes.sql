-- Devices as other programs number them: from 0 on, in the order in which they came, and never another's.

ALTER TABLE devices ADD COLUMN node BIGINT;
UPDATE devices SET node = (
    SELECT COUNT(*) FROM devices AS other
    WHERE other.enrolled_at < devices.enrolled_at OR (other.enrolled_at = devices.enrolled_at AND other.id < devices.id)
);
CREATE UNIQUE INDEX devices_by_node ON devices (node);

-- The newest certificate of each node, for whoever wants to verify what it signed; kept where the trust API is on.
CREATE TABLE node_certificates (
    device_id   TEXT   NOT NULL PRIMARY KEY REFERENCES devices (id),
    serial      TEXT   NOT NULL,  -- hex
    issued_at   BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    certificate BLOB   NOT NULL   -- DER
);
