-- Agents of Keylime's: what each is called there, and whose it is. A device has one such name, its newest.
CREATE TABLE keylime_agents (
    id            TEXT   NOT NULL PRIMARY KEY,  -- as Keylime calls it
    device_id     TEXT   NOT NULL UNIQUE REFERENCES devices (id),
    ak_public     BLOB   NOT NULL,              -- TPM2B_PUBLIC; the device's own AK where it has no other agent
    address       TEXT   NOT NULL,              -- where it listens, by its own word
    port          BIGINT NOT NULL,
    certificate   TEXT   NOT NULL,              -- what it shows there, PEM, or 'disabled'
    registered_at BIGINT NOT NULL,              -- when it registered last
    registrations BIGINT NOT NULL               -- how often another identity was bound to the name
);
