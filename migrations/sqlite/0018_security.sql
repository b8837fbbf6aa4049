-- The leaves that are about refusals of who tried what they may not, so that they are found without reading the trail.
CREATE TABLE security (
    leaf BIGINT NOT NULL PRIMARY KEY REFERENCES audit (leaf)
);
