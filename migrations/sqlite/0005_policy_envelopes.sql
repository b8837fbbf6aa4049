-- What a policy was signed with (DSSE), as it was received: verified again whenever the server starts. Without one the
-- policy was set where nobody had to sign, or the server made it of two signed ones for a roll-out.

ALTER TABLE policies ADD COLUMN envelope TEXT;
