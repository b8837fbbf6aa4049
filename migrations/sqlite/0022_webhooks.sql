-- How far each receiver of notices has read the trail, which is their queue.
CREATE TABLE webhooks (
    name      TEXT PRIMARY KEY,
    next_leaf INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Leaves that a receiver was not given for good, until they are sent again.
CREATE TABLE webhook_letters (
    webhook TEXT NOT NULL,
    leaf    INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    reason  TEXT NOT NULL,
    again   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (webhook, leaf)
) STRICT, WITHOUT ROWID;
