-- IDevID and IAK that a device showed when it enrolled, verified then; verified again with each attachment.

ALTER TABLE devices ADD COLUMN iak_public           BLOB NOT NULL DEFAULT x'';  -- TPM2B_PUBLIC; empty: none was shown
ALTER TABLE devices ADD COLUMN iak_certificate      BLOB NOT NULL DEFAULT x'';
ALTER TABLE devices ADD COLUMN idevid_public        BLOB NOT NULL DEFAULT x'';
ALTER TABLE devices ADD COLUMN idevid_certificate   BLOB NOT NULL DEFAULT x'';
ALTER TABLE devices ADD COLUMN idevid_intermediates BLOB NOT NULL DEFAULT x'';  -- concatenated DER
