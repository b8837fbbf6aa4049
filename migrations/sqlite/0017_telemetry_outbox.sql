-- Batches that a destination has not been given yet, from the moment they were taken in.

CREATE TABLE telemetry_outbox (
    destination TEXT   NOT NULL,               -- its name in the configuration
    run         BIGINT NOT NULL,
    sequence    BIGINT NOT NULL,
    PRIMARY KEY (destination, run, sequence)
);
