-- Which leaf withdrew a certificate, so that whoever follows the trail can read back what a leaf brought.

ALTER TABLE svids ADD COLUMN withdrawn_leaf BIGINT NOT NULL DEFAULT -1;  -- -1: it stands, or fell before this was kept
CREATE INDEX svids_by_withdrawal ON svids (withdrawn_leaf) WHERE withdrawn_leaf >= 0;
-- What a revocation list has to name, without a look at all that stands.
CREATE INDEX svids_withdrawn ON svids (not_after) WHERE withdrawn_at > 0;
