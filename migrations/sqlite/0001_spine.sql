-- The spine: devices and their trust, what was granted, and the trail of everything that changed either.
-- Times are seconds since 1970. Types and statements stay in the subset that PostgreSQL shares; what differs
-- (BLOB against BYTEA) is why each database has its own folder.

CREATE TABLE audit (
    leaf       BIGINT NOT NULL PRIMARY KEY,   -- 0, 1, 2, … without gaps
    at         BIGINT NOT NULL,
    kind       TEXT   NOT NULL,               -- device.enrolled, svid.issued, …
    actor      TEXT   NOT NULL,               -- who did it: server, operator, or a SPIFFE ID
    subject    TEXT   NOT NULL,               -- what it was done to
    detail     TEXT   NOT NULL,               -- JSON
    hash       BLOB   NOT NULL                -- over all of the above and the previous leaf's hash
);

-- One row per enrolled device. `trust` is the fold of its events; the columns before it repeat what queries need.
CREATE TABLE devices (
    id                TEXT   NOT NULL PRIMARY KEY,  -- SPIFFE ID
    name              TEXT   NOT NULL,
    ek_public         BLOB   NOT NULL,
    ek_certificate    BLOB   NOT NULL,
    ek_intermediates  BLOB   NOT NULL,              -- concatenated DER
    ak_public         BLOB   NOT NULL,
    device_key_public BLOB   NOT NULL,
    device_key_spki   BLOB   NOT NULL,
    agent_version     TEXT   NOT NULL,
    enrolled_at       BIGINT NOT NULL,
    status            TEXT   NOT NULL,
    tier              TEXT   NOT NULL,
    valid_until       BIGINT NOT NULL,              -- 0: never was
    evidence_at       BIGINT NOT NULL,              -- 0: never was
    reset_count       BIGINT NOT NULL,              -- highest verified; -1: never was
    state_version     BIGINT NOT NULL,
    trust             TEXT   NOT NULL               -- JSON
);
CREATE INDEX devices_by_name ON devices (name);
CREATE INDEX devices_by_expiry ON devices (status, valid_until);

-- The trail's leaves that changed a device's fate, newest wins.
CREATE TABLE events (
    leaf      BIGINT NOT NULL PRIMARY KEY REFERENCES audit (leaf),
    device_id TEXT   NOT NULL REFERENCES devices (id)
);
CREATE INDEX events_by_device ON events (device_id, leaf);

-- Attestation results, written when one differs from the one before.
CREATE TABLE appraisals (
    leaf      BIGINT NOT NULL PRIMARY KEY REFERENCES audit (leaf),
    device_id TEXT   NOT NULL REFERENCES devices (id),
    at        BIGINT NOT NULL,
    tier      TEXT   NOT NULL,
    policy    TEXT   NOT NULL,               -- name and version; empty: none
    findings  TEXT   NOT NULL                -- JSON
);
CREATE INDEX appraisals_by_device ON appraisals (device_id, leaf);

-- Every certificate the authority signed, recorded before it was signed.
CREATE TABLE svids (
    serial        TEXT   NOT NULL PRIMARY KEY,  -- hex
    spiffe_id     TEXT   NOT NULL,
    device_id     TEXT   NOT NULL,              -- whose trust state carries it; empty: an operator's word
    entry_id      TEXT   NOT NULL,              -- the entry that entitled it; empty: the device's own
    spki_sha256   TEXT   NOT NULL,
    state_version BIGINT NOT NULL,
    issued_at     BIGINT NOT NULL,
    not_after     BIGINT NOT NULL,
    withdrawn_at  BIGINT NOT NULL,              -- 0: it stands
    leaf          BIGINT NOT NULL REFERENCES audit (leaf)
);
CREATE INDEX svids_by_device ON svids (device_id, withdrawn_at);
CREATE INDEX svids_by_spiffe_id ON svids (spiffe_id, not_after);
CREATE INDEX svids_by_end ON svids (not_after);

-- The one row of the revocation list: its number only ever grows.
CREATE TABLE revocation_list (
    id     BIGINT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO revocation_list (id, number) VALUES (1, 0);

CREATE TABLE entries (
    id          TEXT   NOT NULL PRIMARY KEY,
    spiffe_id   TEXT   NOT NULL,
    parent      TEXT   NOT NULL,
    selectors   TEXT   NOT NULL,               -- JSON
    ttl_seconds BIGINT NOT NULL,
    dns_names   TEXT   NOT NULL,               -- JSON
    hint        TEXT   NOT NULL,
    created_at  BIGINT NOT NULL
);

-- Every policy that was ever in force; the one with the highest revision is.
CREATE TABLE policies (
    revision BIGINT NOT NULL PRIMARY KEY,
    name     TEXT   NOT NULL,
    version  BIGINT NOT NULL,                  -- counts up within the name
    text     TEXT   NOT NULL,                  -- TOML
    digest   TEXT   NOT NULL,
    set_at   BIGINT NOT NULL,
    set_by   TEXT   NOT NULL
);

-- Telemetry as received: the exact bytes that were signed.
CREATE TABLE telemetry (
    leaf        BIGINT NOT NULL PRIMARY KEY REFERENCES audit (leaf),
    device_id   TEXT   NOT NULL REFERENCES devices (id),
    received_at BIGINT NOT NULL,
    sequence    BIGINT NOT NULL,
    items       BIGINT NOT NULL,
    location    TEXT   NOT NULL,
    statement   BLOB   NOT NULL,
    signature   BLOB   NOT NULL,
    payload     BLOB   NOT NULL
);
CREATE INDEX telemetry_by_device ON telemetry (device_id, leaf);
CREATE INDEX telemetry_by_age ON telemetry (received_at);

-- The last batches of each device that were refused, and why.
CREATE TABLE telemetry_refusals (
    device_id TEXT   NOT NULL REFERENCES devices (id),
    sequence  BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    code      TEXT   NOT NULL,
    reason    TEXT   NOT NULL,
    PRIMARY KEY (device_id, sequence)
);

-- Where each device's chain of batches stands.
CREATE TABLE telemetry_positions (
    device_id TEXT   NOT NULL PRIMARY KEY REFERENCES devices (id),
    revision  BIGINT NOT NULL,                 -- counts acceptances; the compare of compare-and-set
    position  TEXT   NOT NULL                  -- JSON
);
