-- What `applies_to.groups` of a policy looked at, so that a past exchange can be decided again.

ALTER TABLE audit ADD COLUMN caller_groups jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN audit.caller_groups IS 'Groups of the caller''s verified token, in its order; personal, emptied when the person is erased.';
