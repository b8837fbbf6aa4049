-- What each device takes of the database, so that its own oldest makes room for what it sends.

ALTER TABLE evidence ADD COLUMN bytes BIGINT NOT NULL DEFAULT 512;  -- of its row and of the contents that came with it

CREATE TABLE device_usage (
    device_id       TEXT   NOT NULL PRIMARY KEY REFERENCES devices (id),
    evidence_bytes  BIGINT NOT NULL,
    evidence_rows   BIGINT NOT NULL,
    telemetry_bytes BIGINT NOT NULL,
    telemetry_rows  BIGINT NOT NULL,
    result_rows     BIGINT NOT NULL
);
INSERT INTO device_usage (device_id, evidence_bytes, evidence_rows, telemetry_bytes, telemetry_rows, result_rows)
SELECT id,
    (SELECT COALESCE(SUM(evidence.bytes), 0) FROM evidence WHERE evidence.device_id = devices.id),
    (SELECT COUNT(*) FROM evidence WHERE evidence.device_id = devices.id),
    (SELECT COALESCE(SUM(LENGTH(statement) + LENGTH(signature) + LENGTH(payload)), 0) FROM telemetry
     WHERE telemetry.device_id = devices.id),
    (SELECT COUNT(*) FROM telemetry WHERE telemetry.device_id = devices.id),
    (SELECT COUNT(*) FROM appraisals WHERE appraisals.device_id = devices.id)
FROM devices;

-- What a device was given and has not ended.
CREATE INDEX svids_by_device_end ON svids (device_id, not_after);
