-- Secrets, sealed under a key that is not in the database, and for whom they are.
CREATE TABLE secrets (
    name       TEXT   NOT NULL PRIMARY KEY,
    version    BIGINT NOT NULL,
    sealed     BLOB   NOT NULL,
    bytes      BIGINT NOT NULL,  -- of what is sealed
    autorun    BIGINT NOT NULL,  -- 1: a program that devices run
    assigned   BIGINT NOT NULL,  -- 0: it is nobody's
    labels     TEXT   NOT NULL,  -- of the devices that it is for; empty: of all
    policy     TEXT   NOT NULL,  -- that judges them; empty: any
    changed_at BIGINT NOT NULL
);

-- What devices have, or last had, of each.
CREATE TABLE secret_releases (
    device_id    TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    version      BIGINT NOT NULL,
    released_at  BIGINT NOT NULL,
    withdrawn_at BIGINT NOT NULL,  -- 0: it has it
    PRIMARY KEY (device_id, name)
);
CREATE INDEX secret_releases_by_name ON secret_releases (name, withdrawn_at);
