-- Which of Keylime's agents an operator added with Keylime's tenant: what it lists.
ALTER TABLE keylime_agents ADD COLUMN added_at BIGINT NOT NULL DEFAULT 0;  -- 0: none did
