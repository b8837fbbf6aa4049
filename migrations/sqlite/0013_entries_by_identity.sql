-- An entry is made once: whether there is one that says the same is looked for each time.

CREATE INDEX entries_by_identity ON entries (spiffe_id, parent);
