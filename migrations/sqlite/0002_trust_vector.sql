-- The result in AR4SI's terms: what a signed attestation result (EAR) repeats.

ALTER TABLE appraisals ADD COLUMN vector TEXT NOT NULL DEFAULT '';  -- JSON; empty: recorded before there was one
