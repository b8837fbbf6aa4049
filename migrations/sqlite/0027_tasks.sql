-- Tasks: what is to be run, where it was placed, and what came of it.
CREATE TABLE tasks (
    id           TEXT   NOT NULL PRIMARY KEY,
    name         TEXT   NOT NULL,
    level        TEXT   NOT NULL,              -- public, confidential, secret
    status       TEXT   NOT NULL,              -- waiting, placed, done, failed, cancelled
    reason       TEXT   NOT NULL,              -- why it is where it is
    definition   BLOB   NOT NULL,
    demands      TEXT   NOT NULL,              -- JSON: what it asks of a device, and of its attempts
    image        BLOB   NOT NULL REFERENCES blobs (hash),
    input        BLOB   NOT NULL REFERENCES blobs (hash),
    submitted_at BIGINT NOT NULL,
    deadline     BIGINT NOT NULL,              -- 0: none
    next_at      BIGINT NOT NULL,              -- not placed before
    attempts     BIGINT NOT NULL,
    ended_at     BIGINT NOT NULL               -- 0: it has not
);
CREATE INDEX tasks_by_status ON tasks (status, next_at);
CREATE INDEX tasks_by_time ON tasks (submitted_at, id);

CREATE TABLE task_attempts (
    task_id        TEXT   NOT NULL REFERENCES tasks (id),
    number         BIGINT NOT NULL,            -- from 1
    device_id      TEXT   NOT NULL REFERENCES devices (id),
    nonce          BLOB   NOT NULL,
    state_version  BIGINT NOT NULL,            -- of the trust state that carries it
    memory_bytes   BIGINT NOT NULL,
    cpu_millis     BIGINT NOT NULL,
    status         TEXT   NOT NULL,            -- standing, ended, withdrawn
    reason         TEXT   NOT NULL,
    placed_at      BIGINT NOT NULL,
    lease_until    BIGINT NOT NULL,
    ended_at       BIGINT NOT NULL,
    leaf           BIGINT NOT NULL,
    withdrawn_leaf BIGINT NOT NULL,            -- -1: it was not
    PRIMARY KEY (task_id, number)
);
CREATE INDEX task_attempts_by_device ON task_attempts (device_id, status);
CREATE INDEX task_attempts_by_status ON task_attempts (status);

-- What was accepted of an attempt: at most one result.
CREATE TABLE task_results (
    task_id   TEXT   NOT NULL,
    attempt   BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    outcome   BLOB   NOT NULL,                 -- the bytes that were signed
    signature BLOB   NOT NULL,
    shown     TEXT   NOT NULL,                 -- JSON: what the device showed beside it, and by whose keys
    output    BLOB   NOT NULL REFERENCES blobs (hash),
    messages  BLOB   NOT NULL REFERENCES blobs (hash),
    leaf      BIGINT NOT NULL,
    PRIMARY KEY (task_id, attempt)
);

-- How far each device's log of tasks was seen in its last boot: what is shown later has to go on from there.
CREATE TABLE task_logs (
    device_id   TEXT   NOT NULL PRIMARY KEY REFERENCES devices (id),
    reset_count BIGINT NOT NULL,
    entries     BIGINT NOT NULL,
    head        BLOB   NOT NULL,
    value       BLOB   NOT NULL
);
