-- Devices that were never here: those that wait for an operator's word, and those that have it and did not enroll yet.

CREATE TABLE pending (
    id              TEXT   NOT NULL PRIMARY KEY,  -- SPIFFE ID, which the TPM has proven
    name            TEXT   NOT NULL,              -- what it calls itself
    ek_manufacturer TEXT   NOT NULL,              -- what its certificates say; empty: nothing
    ek_issuer       TEXT   NOT NULL,
    ek_serial       TEXT   NOT NULL,
    serial          TEXT   NOT NULL,
    idevid_subject  TEXT   NOT NULL,
    address         TEXT   NOT NULL,
    first_at        BIGINT NOT NULL,
    last_at         BIGINT NOT NULL,
    word            TEXT   NOT NULL,              -- waiting, admitted, denied
    word_at         BIGINT NOT NULL,              -- 0: it waits
    reason          TEXT   NOT NULL
);
CREATE INDEX pending_by_word ON pending (word, last_at);
