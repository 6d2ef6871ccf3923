-- Sums per segment; '' is all rows. What is due is found by when a sum ends.
ALTER TABLE window_sum ADD COLUMN segment text NOT NULL DEFAULT '', ADD COLUMN end_us bigint;
UPDATE window_sum AS w SET end_us = w.window_start_us + coalesce(
    (SELECT v.window_us FROM version AS v
     WHERE v.model_name = w.model_name AND v.version = w.version), 3600000000);
ALTER TABLE window_sum ALTER COLUMN end_us SET NOT NULL;
ALTER TABLE window_sum DROP CONSTRAINT window_sum_pkey;
ALTER TABLE window_sum ADD PRIMARY KEY (model_name, version, segment, window_start_us, partition);
CREATE INDEX window_sum_end ON window_sum (model_name, end_us);

-- Judged windows, the older the coarser: what a diagnosis looks back on.
CREATE TABLE closed_window (
    model_name text NOT NULL,
    version int NOT NULL,
    segment text NOT NULL,
    start_us bigint NOT NULL,
    end_us bigint NOT NULL,
    layout text NOT NULL,
    -- Deflated int64.
    sums bytea NOT NULL,
    PRIMARY KEY (model_name, version, segment, start_us)
);

-- What detectors remember. No two states ever have one revision.
CREATE SEQUENCE detector_revision;
CREATE TABLE detector_state (
    model_name text NOT NULL,
    version int NOT NULL,
    segment text NOT NULL,
    name text NOT NULL,
    revision bigint NOT NULL DEFAULT nextval('detector_revision'),
    state bytea NOT NULL,
    PRIMARY KEY (model_name, version, segment, name)
);
ALTER TABLE detector_state ALTER COLUMN state SET STORAGE EXTERNAL;
-- An older form, which is rebuilt.
INSERT INTO detector_state (model_name, version, segment, name, state)
SELECT model_name, version, '', 'losses', convert_to(loss_state, 'UTF8')
FROM version WHERE loss_state IS NOT NULL;
ALTER TABLE version DROP COLUMN loss_state;
ALTER TABLE version ADD COLUMN serving_since_us bigint;

-- Detectors whose state was lost and that the ledger's past is to rebuild.
CREATE TABLE rebuild_due (
    model_name text NOT NULL,
    version int NOT NULL,
    segment text NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (model_name, version, segment, name)
);

-- 1: float64 scores, decisions and truths stand behind the ids' column.
ALTER TABLE loss_block ADD COLUMN form int NOT NULL DEFAULT 0;

-- Which rows of a block belong to which segments, until their truth has come or can't any more.
CREATE TABLE block_segment (
    block_id bytea PRIMARY KEY,
    -- The segments' names, a line each; per segment one bit per row, deflated.
    names text NOT NULL,
    bits bytea NOT NULL,
    forget_after_us bigint NOT NULL
);
CREATE INDEX block_segment_forget ON block_segment (forget_after_us);

-- When a model has something to judge: its first sum's end, its first loss's known-at time.
CREATE TABLE due (
    model_name text PRIMARY KEY REFERENCES model,
    windows_us bigint,
    losses_us bigint
);
CREATE INDEX due_windows ON due (windows_us);
CREATE INDEX due_losses ON due (losses_us);
INSERT INTO due SELECT model_name,
    (SELECT min(end_us) FROM window_sum AS w WHERE w.model_name = m.model_name),
    (SELECT min(first_known_us) FROM loss_block AS l WHERE l.model_name = m.model_name)
FROM model AS m;

-- Monitors that share the topics' partitions.
CREATE TABLE instance (
    name text PRIMARY KEY,
    seen_at timestamptz NOT NULL
);

ALTER TABLE alert ADD COLUMN segment text NOT NULL DEFAULT '';
DROP INDEX alert_one_open;
CREATE UNIQUE INDEX alert_one_open ON alert (model_name, version, rule, segment) WHERE is_open;
