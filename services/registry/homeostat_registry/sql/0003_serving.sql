-- Who answers beside the champion, and how requests are batched; {} is the champion alone.
ALTER TABLE model ADD COLUMN serving jsonb NOT NULL DEFAULT '{}';
-- The revision at which champion or autonomy last changed: evidence from then on is not stale. 0: the
-- present one.
ALTER TABLE model ADD COLUMN settled_revision bigint NOT NULL DEFAULT 0;
-- That a version is another form of its parent; in place of evidence.
ALTER TABLE version ADD COLUMN equivalence jsonb;
