-- An entry can be changed: what was decided on an earlier revision of it counts no longer.

ALTER TABLE entries ADD COLUMN revision BIGINT NOT NULL DEFAULT 1;
