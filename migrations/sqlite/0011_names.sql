-- A name is one device's, and a page of devices is found in an index, however many there are.

-- Of those that enrolled before names were one device's, all but one get their hash behind it.
UPDATE devices SET name = name || '-' || SUBSTR(id, -64)
WHERE EXISTS (SELECT 1 FROM devices AS other WHERE other.name = devices.name AND other.id < devices.id);
DROP INDEX devices_by_name;
CREATE UNIQUE INDEX devices_by_name ON devices (name);
CREATE INDEX devices_by_status ON devices (status, name);

-- The labels of devices, each once more: devices.labels is for whoever has the device, this for whoever looks for it.
CREATE TABLE device_labels (
    label TEXT NOT NULL,                                                    -- key=value
    name  TEXT NOT NULL REFERENCES devices (name) ON UPDATE CASCADE,
    PRIMARY KEY (label, name)
);
CREATE INDEX device_labels_by_name ON device_labels (name);
INSERT INTO device_labels (label, name)
SELECT pair.value, devices.name
FROM devices, json_each('["' || REPLACE(devices.labels, ',', '","') || '"]') AS pair
WHERE devices.labels <> '';
