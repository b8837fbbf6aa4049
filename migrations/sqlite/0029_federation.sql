-- Other trust domains: where their bundles are found, and the bundle that counts.
CREATE TABLE foreign_domains (
    trust_domain TEXT   NOT NULL PRIMARY KEY,
    url          TEXT   NOT NULL,            -- empty: nothing is fetched
    endpoint_id  TEXT   NOT NULL,            -- https_spiffe: who is to answer there; empty: https_web
    document     TEXT   NOT NULL,            -- JSON as the SPIFFE standard has it; empty: there is none yet
    sequence     BIGINT NOT NULL,            -- the document's own number
    changed_at   BIGINT NOT NULL
);

ALTER TABLE entries ADD COLUMN federates_with TEXT NOT NULL DEFAULT '[]';  -- JSON: names of trust domains
