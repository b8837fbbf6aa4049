-- What programs and people at a shell prove themselves by; what they show is not in here.
CREATE TABLE access_tokens (
    name       TEXT   NOT NULL PRIMARY KEY,
    sha256     BLOB   NOT NULL UNIQUE,
    role       TEXT   NOT NULL,
    scope      TEXT   NOT NULL,  -- labels of the devices that it is for; empty: all
    created_by TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL   -- 0: it was not
);

-- People whom the configured provider vouched for, as they signed in last.
CREATE TABLE people (
    issuer     TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    scope      TEXT   NOT NULL,
    first_at   BIGINT NOT NULL,
    last_at    BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
