-- What `applies_to.groups` of a policy looked at, so that a past exchange can be decided again.

ALTER TABLE audit ADD COLUMN caller_groups TEXT NOT NULL DEFAULT '[]';
