-- Certificates in the order of their ends, with a place for each, so that a list of them goes on where it stopped.

DROP INDEX svids_by_end;
CREATE INDEX svids_by_end ON svids (not_after, serial);
DROP INDEX svids_withdrawn;
CREATE INDEX svids_withdrawn ON svids (not_after, serial) WHERE withdrawn_at > 0;
