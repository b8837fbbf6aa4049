-- Which policy is in force for which devices: by the labels that operators give them, and step by step.

ALTER TABLE devices ADD COLUMN labels TEXT NOT NULL DEFAULT '';  -- key=value,… in the order of the keys

-- A policy for the devices that have all labels of the selector. While another takes its place, the rest says how far
-- that is; 0: nothing is being rolled out.
CREATE TABLE assignments (
    selector       TEXT   NOT NULL PRIMARY KEY,  -- as labels are written; empty: every device
    revision       BIGINT NOT NULL REFERENCES policies (revision),
    rollout        BIGINT NOT NULL,              -- the union's revision when it began
    union_revision BIGINT NOT NULL,
    new_revision   BIGINT NOT NULL,
    percent        BIGINT NOT NULL
);

-- Until now the policy with the highest revision was in force for everyone.
INSERT INTO assignments (selector, revision, rollout, union_revision, new_revision, percent)
SELECT '', revision, 0, 0, 0, 0 FROM policies ORDER BY revision DESC LIMIT 1;

-- The one row that counts changes of the above: the compare of compare-and-set.
CREATE TABLE plan (
    id      BIGINT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
);
INSERT INTO plan (id, version) VALUES (1, 1);
