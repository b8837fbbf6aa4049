-- Nodes that attest as SPIRE's agents do, without quotes: what they showed, and their trust.
CREATE TABLE spire_agents (
    id            TEXT   NOT NULL PRIMARY KEY,  -- SPIFFE ID
    attestor      TEXT   NOT NULL,              -- join_token, x509pop, tpm
    selectors     TEXT   NOT NULL,              -- JSON: what it showed beside that
    can_reattest  BIGINT NOT NULL,              -- 1: it attests again instead of renewing
    agent_version TEXT   NOT NULL,              -- its own word
    attested_at   BIGINT NOT NULL,
    status        TEXT   NOT NULL,
    valid_until   BIGINT NOT NULL,              -- 0: it does not stand
    state_version BIGINT NOT NULL,
    trust         TEXT   NOT NULL               -- JSON
);
CREATE INDEX spire_agents_by_expiry ON spire_agents (status, valid_until);

-- Join tokens that nobody showed yet. A token is a secret until then.
CREATE TABLE join_tokens (
    sha256     TEXT   NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

ALTER TABLE entries ADD COLUMN unquoted        BIGINT NOT NULL DEFAULT 0;  -- 1: for nodes that cannot quote, too
ALTER TABLE entries ADD COLUMN jwt_ttl_seconds BIGINT NOT NULL DEFAULT 0;  -- 0: nothing is said
ALTER TABLE entries ADD COLUMN expires_at      BIGINT NOT NULL DEFAULT 0;  -- 0: never
