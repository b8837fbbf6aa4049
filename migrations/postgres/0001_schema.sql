-- The schema as SQLite has it after its step 32, in PostgreSQL's types. Texts compare by their bytes, as SQLite's do, whatever the
-- locale of the database: what is listed goes on where it stopped on either.

CREATE TABLE audit (
    leaf    BIGINT           NOT NULL PRIMARY KEY,  -- 0, 1, 2, … without gaps
    at      BIGINT           NOT NULL,
    kind    TEXT COLLATE "C" NOT NULL,  -- device.enrolled, svid.issued, …
    actor   TEXT COLLATE "C" NOT NULL,  -- who did it: server, operator, or a SPIFFE ID
    subject TEXT COLLATE "C" NOT NULL,  -- what it was done to
    detail  TEXT COLLATE "C" NOT NULL,  -- JSON
    hash    BYTEA            NOT NULL  -- over all of the above and the previous leaf's hash
);

CREATE TABLE devices (
    id                   TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- SPIFFE ID
    name                 TEXT COLLATE "C" NOT NULL,
    ek_public            BYTEA            NOT NULL,
    ek_certificate       BYTEA            NOT NULL,
    ek_intermediates     BYTEA            NOT NULL,  -- concatenated DER
    ak_public            BYTEA            NOT NULL,
    device_key_public    BYTEA            NOT NULL,
    device_key_spki      BYTEA            NOT NULL,
    agent_version        TEXT COLLATE "C" NOT NULL,
    enrolled_at          BIGINT           NOT NULL,
    status               TEXT COLLATE "C" NOT NULL,
    tier                 TEXT COLLATE "C" NOT NULL,
    valid_until          BIGINT           NOT NULL,  -- 0: never was
    evidence_at          BIGINT           NOT NULL,  -- 0: never was
    reset_count          BIGINT           NOT NULL,  -- highest verified; -1: never was
    state_version        BIGINT           NOT NULL,
    trust                TEXT COLLATE "C" NOT NULL,  -- JSON
    labels               TEXT COLLATE "C" NOT NULL DEFAULT '',  -- key=value,… in the order of the keys
    iak_public           BYTEA            NOT NULL DEFAULT '',  -- TPM2B_PUBLIC; empty: none was shown
    iak_certificate      BYTEA            NOT NULL DEFAULT '',
    idevid_public        BYTEA            NOT NULL DEFAULT '',
    idevid_certificate   BYTEA            NOT NULL DEFAULT '',
    idevid_intermediates BYTEA            NOT NULL DEFAULT '',  -- concatenated DER
    node                 BIGINT
);
CREATE INDEX devices_by_expiry ON devices (status, valid_until);

CREATE TABLE events (
    leaf      BIGINT           NOT NULL PRIMARY KEY REFERENCES audit (leaf),
    device_id TEXT COLLATE "C" NOT NULL REFERENCES devices (id)
);
CREATE INDEX events_by_device ON events (device_id, leaf);

CREATE TABLE appraisals (
    leaf      BIGINT           NOT NULL PRIMARY KEY REFERENCES audit (leaf),
    device_id TEXT COLLATE "C" NOT NULL REFERENCES devices (id),
    at        BIGINT           NOT NULL,
    tier      TEXT COLLATE "C" NOT NULL,
    policy    TEXT COLLATE "C" NOT NULL,  -- name and version; empty: none
    findings  TEXT COLLATE "C" NOT NULL,  -- JSON
    vector    TEXT COLLATE "C" NOT NULL DEFAULT ''  -- JSON; empty: recorded before there was one
);
CREATE INDEX appraisals_by_device ON appraisals (device_id, leaf);

CREATE TABLE svids (
    serial         TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- hex
    spiffe_id      TEXT COLLATE "C" NOT NULL,
    device_id      TEXT COLLATE "C" NOT NULL,  -- whose trust state carries it; empty: an operator's word
    entry_id       TEXT COLLATE "C" NOT NULL,  -- the entry that entitled it; empty: the device's own
    spki_sha256    TEXT COLLATE "C" NOT NULL,
    state_version  BIGINT           NOT NULL,
    issued_at      BIGINT           NOT NULL,
    not_after      BIGINT           NOT NULL,
    withdrawn_at   BIGINT           NOT NULL,  -- 0: it stands
    leaf           BIGINT           NOT NULL REFERENCES audit (leaf),
    withdrawn_leaf BIGINT           NOT NULL DEFAULT -1  -- 1: it stands, or fell before this was kept
);
CREATE INDEX svids_by_device ON svids (device_id, withdrawn_at);
CREATE INDEX svids_by_spiffe_id ON svids (spiffe_id, not_after);

CREATE TABLE revocation_list (
    id     BIGINT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO revocation_list (id, number) VALUES (1, 0);

CREATE TABLE entries (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    spiffe_id       TEXT COLLATE "C" NOT NULL,
    parent          TEXT COLLATE "C" NOT NULL,
    selectors       TEXT COLLATE "C" NOT NULL,  -- JSON
    ttl_seconds     BIGINT           NOT NULL,
    dns_names       TEXT COLLATE "C" NOT NULL,  -- JSON
    hint            TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT           NOT NULL,
    revision        BIGINT           NOT NULL DEFAULT 1,
    speaks_for_node BOOLEAN          NOT NULL DEFAULT FALSE,
    unquoted        BIGINT           NOT NULL DEFAULT 0,  -- 1: for nodes that cannot quote, too
    jwt_ttl_seconds BIGINT           NOT NULL DEFAULT 0,  -- 0: nothing is said
    expires_at      BIGINT           NOT NULL DEFAULT 0,  -- 0: never
    federates_with  TEXT COLLATE "C" NOT NULL DEFAULT '[]'  -- JSON: names of trust domains
);

CREATE TABLE policies (
    revision BIGINT           NOT NULL PRIMARY KEY,
    name     TEXT COLLATE "C" NOT NULL,
    version  BIGINT           NOT NULL,  -- counts up within the name
    text     TEXT COLLATE "C" NOT NULL,  -- TOML
    digest   TEXT COLLATE "C" NOT NULL,
    set_at   BIGINT           NOT NULL,
    set_by   TEXT COLLATE "C" NOT NULL,
    envelope TEXT COLLATE "C"
);

CREATE TABLE telemetry_positions (
    device_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES devices (id),
    revision  BIGINT           NOT NULL,  -- counts acceptances; the compare of compare-and-set
    position  TEXT COLLATE "C" NOT NULL,  -- JSON
    run       BIGINT           NOT NULL DEFAULT -1  -- the run that goes on; -1: none does
);

CREATE TABLE blobs (
    hash   BYTEA  NOT NULL PRIMARY KEY,
    users  BIGINT NOT NULL,
    bytes  BIGINT NOT NULL,  -- of the content
    stored BIGINT NOT NULL  -- of what is kept of it
);
CREATE INDEX blobs_unused ON blobs (hash) WHERE users = 0;

CREATE TABLE blob_contents (
    hash    BYTEA NOT NULL PRIMARY KEY REFERENCES blobs (hash),
    content BYTEA NOT NULL  -- LZ4 block
);

CREATE TABLE boots (
    id          BIGINT           NOT NULL PRIMARY KEY,  -- the first evidence of it
    device_id   TEXT COLLATE "C" NOT NULL REFERENCES devices (id),
    ak_public   BYTEA            NOT NULL,
    endorsement BYTEA            NOT NULL,  -- blob: the EK certificate and its intermediates, concatenated DER
    anchors     BYTEA            NOT NULL,  -- blob: who was trusted to vouch for TPMs, PEM
    ima_ascii   BIGINT           NOT NULL,  -- 1: the list is in the ASCII form
    ima_entries BIGINT           NOT NULL,  -- attested so far
    ima_bytes   BIGINT           NOT NULL  -- of these
);

CREATE TABLE ima_parts (
    boot       BIGINT NOT NULL REFERENCES boots (id),
    from_entry BIGINT NOT NULL,
    to_entry   BIGINT NOT NULL,
    blob       BYTEA  NOT NULL,
    PRIMARY KEY (boot, from_entry)
);

CREATE TABLE evidence (
    id                 BIGINT           NOT NULL PRIMARY KEY,
    device_id          TEXT COLLATE "C" NOT NULL REFERENCES devices (id),
    boot               BIGINT           NOT NULL REFERENCES boots (id),
    leaf               BIGINT           NOT NULL,  -- of the result recorded with it; -1: it changed none
    at                 BIGINT           NOT NULL,
    policy_revision    BIGINT           NOT NULL,  -- 0: none was set
    last_reset_count   BIGINT           NOT NULL,  -- expected then; -1: none was known
    last_restart_count BIGINT           NOT NULL,  -- and within that boot
    nonce              BYTEA            NOT NULL,
    quote              BYTEA            NOT NULL,  -- message, signature and PCR values, as received
    boot_log           BYTEA            NOT NULL,  -- blob: what it said, or what was known of the boot
    boot_log_judged    BIGINT           NOT NULL,  -- 1: it was judged with the rest; 0: it was known
    known_entries      BIGINT           NOT NULL,  -- IMA entries that were known to be good; -1: nothing was known of the boot
    ima_from           BIGINT           NOT NULL,  -- the first entry of its own list
    ima_shared         BIGINT           NOT NULL,  -- so many entries since boot are in the parts; 0: all of its own list is in ima_rest
    ima_rest           BYTEA            NOT NULL,  -- blob: what of the list is not in the parts
    ima_ascii          BIGINT           NOT NULL,  -- 1: the rest is in the ASCII form
    attested           BIGINT           NOT NULL,  -- entries since boot that the quote attests; -1: it did not verify
    basis              BIGINT           NOT NULL,  -- the evidence that says what was known; 0: this one does
    bytes              BIGINT           NOT NULL DEFAULT 512  -- of its row and of the contents that came with it
);
CREATE INDEX evidence_by_device ON evidence (device_id, id);
CREATE INDEX evidence_by_boot ON evidence (boot, id);
CREATE INDEX evidence_by_result ON evidence (leaf) WHERE leaf >= 0;
CREATE INDEX evidence_by_basis ON evidence (basis) WHERE basis > 0;

CREATE TABLE evidence_usage (
    id      BIGINT NOT NULL PRIMARY KEY,
    next_id BIGINT NOT NULL,
    bytes   BIGINT NOT NULL
);
INSERT INTO evidence_usage (id, next_id, bytes) VALUES (1, 1, 0);

CREATE TABLE assignments (
    selector       TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- as labels are written; empty: every device
    revision       BIGINT           NOT NULL REFERENCES policies (revision),
    rollout        BIGINT           NOT NULL,  -- the union's revision when it began
    union_revision BIGINT           NOT NULL,
    new_revision   BIGINT           NOT NULL,
    percent        BIGINT           NOT NULL
);

CREATE TABLE plan (
    id      BIGINT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
);
INSERT INTO plan (id, version) VALUES (1, 1);
CREATE INDEX svids_by_withdrawal ON svids (withdrawn_leaf) WHERE withdrawn_leaf >= 0;

CREATE TABLE ledger_heads (
    hour   BIGINT           NOT NULL PRIMARY KEY,  -- since 1970
    leaves BIGINT           NOT NULL,
    note   TEXT COLLATE "C" NOT NULL  -- C2SP signed-note
);

CREATE TABLE device_usage (
    device_id       TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES devices (id),
    evidence_bytes  BIGINT           NOT NULL,
    evidence_rows   BIGINT           NOT NULL,
    telemetry_bytes BIGINT           NOT NULL,
    telemetry_rows  BIGINT           NOT NULL,
    result_rows     BIGINT           NOT NULL
);
CREATE INDEX svids_by_device_end ON svids (device_id, not_after);

CREATE TABLE authority (
    id           BIGINT           NOT NULL PRIMARY KEY,  -- 1
    root_sha256  TEXT COLLATE "C" NOT NULL,  -- of the root's certificate, hex
    issuing_spki TEXT COLLATE "C" NOT NULL,  -- SHA-256 of the issuing CA's public key, hex
    ledger_key   TEXT COLLATE "C" NOT NULL  -- what verifies heads of the trail
);
CREATE UNIQUE INDEX devices_by_name ON devices (name);
CREATE INDEX devices_by_status ON devices (status, name);

CREATE TABLE device_labels (
    label TEXT COLLATE "C" NOT NULL,  -- key=value
    name  TEXT COLLATE "C" NOT NULL REFERENCES devices (name) ON UPDATE CASCADE,
    PRIMARY KEY (label, name)
);
CREATE INDEX device_labels_by_name ON device_labels (name);

CREATE TABLE pending (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- SPIFFE ID, which the TPM has proven
    name            TEXT COLLATE "C" NOT NULL,  -- what it calls itself
    ek_manufacturer TEXT COLLATE "C" NOT NULL,  -- what its certificates say; empty: nothing
    ek_issuer       TEXT COLLATE "C" NOT NULL,
    ek_serial       TEXT COLLATE "C" NOT NULL,
    serial          TEXT COLLATE "C" NOT NULL,
    idevid_subject  TEXT COLLATE "C" NOT NULL,
    address         TEXT COLLATE "C" NOT NULL,
    first_at        BIGINT           NOT NULL,
    last_at         BIGINT           NOT NULL,
    word            TEXT COLLATE "C" NOT NULL,  -- waiting, admitted, denied
    word_at         BIGINT           NOT NULL,  -- 0: it waits
    reason          TEXT COLLATE "C" NOT NULL
);
CREATE INDEX pending_by_word ON pending (word, last_at);
CREATE INDEX entries_by_identity ON entries (spiffe_id, parent);

CREATE TABLE telemetry_runs (
    leaf           BIGINT           NOT NULL PRIMARY KEY REFERENCES audit (leaf),  -- its first batch was taken in with it
    device_id      TEXT COLLATE "C" NOT NULL REFERENCES devices (id),
    state_version  BIGINT           NOT NULL,  -- that all of it was accepted on
    location       TEXT COLLATE "C" NOT NULL,  -- where the device says it was, all the while
    stage          BIGINT           NOT NULL,  -- 0: it goes on; 1: it has ended; 2: it is packed
    first_sequence BIGINT           NOT NULL,
    batches        BIGINT           NOT NULL,
    items          BIGINT           NOT NULL,
    first_at       BIGINT           NOT NULL,
    last_at        BIGINT           NOT NULL,
    bytes          BIGINT           NOT NULL,  -- of statements, signatures and payloads as received
    stored         BIGINT           NOT NULL,  -- what is kept of these
    packed         BYTEA            NOT NULL  -- empty: its batches are rows
);
CREATE INDEX telemetry_runs_by_device ON telemetry_runs (device_id, leaf);
CREATE INDEX telemetry_runs_by_age ON telemetry_runs (last_at);
CREATE INDEX telemetry_runs_unpacked ON telemetry_runs (stage, first_at) WHERE stage < 2;

CREATE TABLE telemetry_batches (
    run         BIGINT NOT NULL REFERENCES telemetry_runs (leaf),
    sequence    BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    items       BIGINT NOT NULL,
    statement   BYTEA  NOT NULL,
    signature   BYTEA  NOT NULL,
    payload     BYTEA  NOT NULL,
    PRIMARY KEY (run, sequence)
);
CREATE UNIQUE INDEX devices_by_node ON devices (node);

CREATE TABLE node_certificates (
    device_id   TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES devices (id),
    serial      TEXT COLLATE "C" NOT NULL,  -- hex
    issued_at   BIGINT           NOT NULL,
    not_after   BIGINT           NOT NULL,
    certificate BYTEA            NOT NULL  -- DER
);

CREATE TABLE telemetry_outbox (
    destination TEXT COLLATE "C" NOT NULL,  -- its name in the configuration
    run         BIGINT           NOT NULL,
    sequence    BIGINT           NOT NULL,
    PRIMARY KEY (destination, run, sequence)
);

CREATE TABLE security (
    leaf BIGINT NOT NULL PRIMARY KEY REFERENCES audit (leaf)
);

CREATE TABLE telemetry_keys (
    hash      TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- SHA-256 of its PEM's text: what the protocol names it by
    device_id TEXT COLLATE "C" NOT NULL REFERENCES devices (id),
    spki      BYTEA            NOT NULL,
    added_at  BIGINT           NOT NULL
);
CREATE INDEX telemetry_keys_by_device ON telemetry_keys (device_id);

CREATE TABLE telemetry_json_positions (
    device_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES devices (id),
    revision  BIGINT           NOT NULL,
    position  TEXT COLLATE "C" NOT NULL,
    run       BIGINT           NOT NULL
);

CREATE TABLE telemetry_refusals (
    device_id TEXT COLLATE "C" NOT NULL REFERENCES devices (id),
    chain     BIGINT           NOT NULL,  -- 0: the device's own; 1: what came by the JSON protocol
    sequence  BIGINT           NOT NULL,
    at        BIGINT           NOT NULL,
    code      TEXT COLLATE "C" NOT NULL,
    reason    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (device_id, chain, sequence)
);

CREATE TABLE classic_certificates (
    device_id   TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES devices (id),
    serial      TEXT COLLATE "C" NOT NULL,  -- hex
    issued_at   BIGINT           NOT NULL,
    not_after   BIGINT           NOT NULL,
    certificate BYTEA            NOT NULL  -- DER
);

CREATE TABLE webhooks (
    name      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    next_leaf BIGINT           NOT NULL
);

CREATE TABLE webhook_letters (
    webhook TEXT COLLATE "C" NOT NULL,
    leaf    BIGINT           NOT NULL,
    at      BIGINT           NOT NULL,
    reason  TEXT COLLATE "C" NOT NULL,
    again   BIGINT           NOT NULL DEFAULT 0,
    PRIMARY KEY (webhook, leaf)
);

CREATE TABLE spire_agents (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- SPIFFE ID
    attestor      TEXT COLLATE "C" NOT NULL,  -- join_token, x509pop, tpm
    selectors     TEXT COLLATE "C" NOT NULL,  -- JSON: what it showed beside that
    can_reattest  BIGINT           NOT NULL,  -- 1: it attests again instead of renewing
    agent_version TEXT COLLATE "C" NOT NULL,  -- its own word
    attested_at   BIGINT           NOT NULL,
    status        TEXT COLLATE "C" NOT NULL,
    valid_until   BIGINT           NOT NULL,  -- 0: it does not stand
    state_version BIGINT           NOT NULL,
    trust         TEXT COLLATE "C" NOT NULL  -- JSON
);
CREATE INDEX spire_agents_by_expiry ON spire_agents (status, valid_until);

CREATE TABLE join_tokens (
    sha256     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    expires_at BIGINT           NOT NULL
);

CREATE TABLE keylime_agents (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- as Keylime calls it
    device_id     TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES devices (id),
    ak_public     BYTEA            NOT NULL,  -- TPM2B_PUBLIC; the device's own AK where it has no other agent
    address       TEXT COLLATE "C" NOT NULL,  -- where it listens, by its own word
    port          BIGINT           NOT NULL,
    certificate   TEXT COLLATE "C" NOT NULL,  -- what it shows there, PEM, or 'disabled'
    registered_at BIGINT           NOT NULL,  -- when it registered last
    registrations BIGINT           NOT NULL,  -- how often another identity was bound to the name
    added_at      BIGINT           NOT NULL DEFAULT 0  -- 0: none did
);

CREATE TABLE secrets (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version    BIGINT           NOT NULL,
    sealed     BYTEA            NOT NULL,
    bytes      BIGINT           NOT NULL,  -- of what is sealed
    autorun    BIGINT           NOT NULL,  -- 1: a program that devices run
    assigned   BIGINT           NOT NULL,  -- 0: it is nobody's
    labels     TEXT COLLATE "C" NOT NULL,  -- of the devices that it is for; empty: of all
    policy     TEXT COLLATE "C" NOT NULL,  -- that judges them; empty: any
    changed_at BIGINT           NOT NULL
);

CREATE TABLE secret_releases (
    device_id    TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    version      BIGINT           NOT NULL,
    released_at  BIGINT           NOT NULL,
    withdrawn_at BIGINT           NOT NULL,  -- 0: it has it
    PRIMARY KEY (device_id, name)
);
CREATE INDEX secret_releases_by_name ON secret_releases (name, withdrawn_at);

CREATE TABLE tasks (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name         TEXT COLLATE "C" NOT NULL,
    level        TEXT COLLATE "C" NOT NULL,  -- public, confidential, secret
    status       TEXT COLLATE "C" NOT NULL,  -- waiting, placed, done, failed, cancelled
    reason       TEXT COLLATE "C" NOT NULL,  -- why it is where it is
    definition   BYTEA            NOT NULL,
    demands      TEXT COLLATE "C" NOT NULL,  -- JSON: what it asks of a device, and of its attempts
    image        BYTEA            NOT NULL REFERENCES blobs (hash),
    input        BYTEA            NOT NULL REFERENCES blobs (hash),
    submitted_at BIGINT           NOT NULL,
    deadline     BIGINT           NOT NULL,  -- 0: none
    next_at      BIGINT           NOT NULL,  -- not placed before
    attempts     BIGINT           NOT NULL,
    ended_at     BIGINT           NOT NULL  -- 0: it has not
);
CREATE INDEX tasks_by_status ON tasks (status, next_at);
CREATE INDEX tasks_by_time ON tasks (submitted_at, id);

CREATE TABLE task_attempts (
    task_id        TEXT COLLATE "C" NOT NULL REFERENCES tasks (id),
    number         BIGINT           NOT NULL,  -- from 1
    device_id      TEXT COLLATE "C" NOT NULL REFERENCES devices (id),
    nonce          BYTEA            NOT NULL,
    state_version  BIGINT           NOT NULL,  -- of the trust state that carries it
    memory_bytes   BIGINT           NOT NULL,
    cpu_millis     BIGINT           NOT NULL,
    status         TEXT COLLATE "C" NOT NULL,  -- standing, ended, withdrawn
    reason         TEXT COLLATE "C" NOT NULL,
    placed_at      BIGINT           NOT NULL,
    lease_until    BIGINT           NOT NULL,
    ended_at       BIGINT           NOT NULL,
    leaf           BIGINT           NOT NULL,
    withdrawn_leaf BIGINT           NOT NULL,  -- -1: it was not
    PRIMARY KEY (task_id, number)
);
CREATE INDEX task_attempts_by_device ON task_attempts (device_id, status);
CREATE INDEX task_attempts_by_status ON task_attempts (status);

CREATE TABLE task_results (
    task_id   TEXT COLLATE "C" NOT NULL,
    attempt   BIGINT           NOT NULL,
    at        BIGINT           NOT NULL,
    outcome   BYTEA            NOT NULL,  -- the bytes that were signed
    signature BYTEA            NOT NULL,
    shown     TEXT COLLATE "C" NOT NULL,  -- JSON: what the device showed beside it, and by whose keys
    output    BYTEA            NOT NULL REFERENCES blobs (hash),
    messages  BYTEA            NOT NULL REFERENCES blobs (hash),
    leaf      BIGINT           NOT NULL,
    PRIMARY KEY (task_id, attempt)
);

CREATE TABLE task_logs (
    device_id   TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES devices (id),
    reset_count BIGINT           NOT NULL,
    entries     BIGINT           NOT NULL,
    head        BYTEA            NOT NULL,
    value       BYTEA            NOT NULL
);

CREATE TABLE access_tokens (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sha256     BYTEA            NOT NULL UNIQUE,
    role       TEXT COLLATE "C" NOT NULL,
    scope      TEXT COLLATE "C" NOT NULL,  -- labels of the devices that it is for; empty: all
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL,
    expires_at BIGINT           NOT NULL,
    revoked_at BIGINT           NOT NULL  -- 0: it was not
);

CREATE TABLE people (
    issuer   TEXT COLLATE "C" NOT NULL,
    subject  TEXT COLLATE "C" NOT NULL,
    name     TEXT COLLATE "C" NOT NULL,
    role     TEXT COLLATE "C" NOT NULL,
    scope    TEXT COLLATE "C" NOT NULL,
    first_at BIGINT           NOT NULL,
    last_at  BIGINT           NOT NULL,
    PRIMARY KEY (issuer, subject)
);

CREATE TABLE foreign_domains (
    trust_domain TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    url          TEXT COLLATE "C" NOT NULL,  -- empty: nothing is fetched
    endpoint_id  TEXT COLLATE "C" NOT NULL,  -- https_spiffe: who is to answer there; empty: https_web
    document     TEXT COLLATE "C" NOT NULL,  -- JSON as the SPIFFE standard has it; empty: there is none yet
    sequence     BIGINT           NOT NULL,  -- the document's own number
    changed_at   BIGINT           NOT NULL
);

CREATE TABLE ledger_tiles (
    number BIGINT NOT NULL PRIMARY KEY,  -- leaves number * 256 up to the next
    root   BYTEA  NOT NULL
);

CREATE TABLE ledger_checkpoints (
    hour   BIGINT           NOT NULL PRIMARY KEY,  -- since 1970
    leaves BIGINT           NOT NULL,
    note   TEXT COLLATE "C" NOT NULL
);
CREATE INDEX svids_by_end ON svids (not_after, serial);
CREATE INDEX svids_withdrawn ON svids (not_after, serial) WHERE withdrawn_at > 0;

CREATE TABLE ak_certificates (
    device_id   TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES devices (id),
    serial      TEXT COLLATE "C" NOT NULL,  -- hex
    issued_at   BIGINT           NOT NULL,
    not_after   BIGINT           NOT NULL,
    certificate BYTEA            NOT NULL  -- DER
);
