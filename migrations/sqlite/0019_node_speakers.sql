-- Whether an entry's workloads may have messages signed in their device's name.

ALTER TABLE entries ADD COLUMN speaks_for_node BOOLEAN NOT NULL DEFAULT FALSE;
