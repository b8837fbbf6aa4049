-- What devices were judged by, kept so that it can be judged again: each content once, each boot's IMA list once.

-- Contents by their SHA-256. How many rows name one is counted apart from the bytes, which may be many.
CREATE TABLE blobs (
    hash   BLOB   NOT NULL PRIMARY KEY,
    users  BIGINT NOT NULL,
    bytes  BIGINT NOT NULL,                    -- of the content
    stored BIGINT NOT NULL                     -- of what is kept of it
);
CREATE INDEX blobs_unused ON blobs (hash) WHERE users = 0;
CREATE TABLE blob_contents (
    hash    BLOB NOT NULL PRIMARY KEY REFERENCES blobs (hash),
    content BLOB NOT NULL                      -- LZ4 block
);

-- What a device told of one boot: with which keys, and its IMA list, which only grows.
CREATE TABLE boots (
    id          BIGINT NOT NULL PRIMARY KEY,   -- the first evidence of it
    device_id   TEXT   NOT NULL REFERENCES devices (id),
    ak_public   BLOB   NOT NULL,
    endorsement BLOB   NOT NULL,               -- blob: the EK certificate and its intermediates, concatenated DER
    anchors     BLOB   NOT NULL,               -- blob: who was trusted to vouch for TPMs, PEM
    ima_ascii   BIGINT NOT NULL,               -- 1: the list is in the ASCII form
    ima_entries BIGINT NOT NULL,               -- attested so far
    ima_bytes   BIGINT NOT NULL                -- of these
);

-- The attested entries from_entry … to_entry - 1 of a boot's IMA list.
CREATE TABLE ima_parts (
    boot       BIGINT NOT NULL REFERENCES boots (id),
    from_entry BIGINT NOT NULL,
    to_entry   BIGINT NOT NULL,
    blob       BLOB   NOT NULL,
    PRIMARY KEY (boot, from_entry)
);

-- One piece of evidence as it was judged. Empty blobs: there was none.
CREATE TABLE evidence (
    id               BIGINT NOT NULL PRIMARY KEY,
    device_id        TEXT   NOT NULL REFERENCES devices (id),
    boot             BIGINT NOT NULL REFERENCES boots (id),
    leaf             BIGINT NOT NULL,          -- of the result recorded with it; -1: it changed none
    at               BIGINT NOT NULL,
    policy_revision  BIGINT NOT NULL,          -- 0: none was set
    last_reset_count BIGINT NOT NULL,          -- expected then; -1: none was known
    last_restart_count BIGINT NOT NULL,        -- and within that boot
    nonce            BLOB   NOT NULL,
    quote            BLOB   NOT NULL,          -- message, signature and PCR values, as received
    boot_log         BLOB   NOT NULL,          -- blob: what it said, or what was known of the boot
    boot_log_judged  BIGINT NOT NULL,          -- 1: it was judged with the rest; 0: it was known
    known_entries    BIGINT NOT NULL,          -- IMA entries that were known to be good; -1: nothing was known of the boot
    ima_from         BIGINT NOT NULL,          -- the first entry of its own list
    ima_shared       BIGINT NOT NULL,          -- so many entries since boot are in the parts; 0: all of its own list is in ima_rest
    ima_rest         BLOB   NOT NULL,          -- blob: what of the list is not in the parts
    ima_ascii        BIGINT NOT NULL,          -- 1: the rest is in the ASCII form
    attested         BIGINT NOT NULL,          -- entries since boot that the quote attests; -1: it did not verify
    basis            BIGINT NOT NULL           -- the evidence that says what was known; 0: this one does
);
CREATE INDEX evidence_by_device ON evidence (device_id, id);
CREATE INDEX evidence_by_boot ON evidence (boot, id);
CREATE INDEX evidence_by_result ON evidence (leaf) WHERE leaf >= 0;
CREATE INDEX evidence_by_basis ON evidence (basis) WHERE basis > 0;

-- The one row that counts: the next evidence's id, and what all of it takes.
CREATE TABLE evidence_usage (
    id      BIGINT NOT NULL PRIMARY KEY,
    next_id BIGINT NOT NULL,
    bytes   BIGINT NOT NULL
);
INSERT INTO evidence_usage (id, next_id, bytes) VALUES (1, 1, 0);
