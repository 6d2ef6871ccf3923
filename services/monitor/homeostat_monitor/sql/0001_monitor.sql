-- A model, who serves, and up to which marks it has been judged.
CREATE TABLE model (
    model_name text PRIMARY KEY,
    champion_version int,
    revision bigint NOT NULL DEFAULT 0,
    windows_until_us bigint,
    losses_until_us bigint
);

-- A version's facts from the registry, and the state of its judges.
CREATE TABLE version (
    model_name text NOT NULL REFERENCES model,
    version int NOT NULL,
    -- False once another version serves in its place.
    is_watched boolean NOT NULL,
    -- Windows before this are closed: their rows come too late.
    closed_until_us bigint,
    -- Windows before this are judged or skipped.
    judge_from_us bigint,
    windows_judged bigint NOT NULL DEFAULT 0,
    -- The mark at which the first window was judged.
    first_judged_us bigint,
    window_us bigint,
    -- JSON of the loss detector; NULL: it has not begun.
    loss_state text,
    -- JSON object: "rule:feature" to the level that was accepted as normal.
    accepted text NOT NULL DEFAULT '{}',
    PRIMARY KEY (model_name, version)
);

-- Totals per window and partition; each poll replaces the rows it adds to.
CREATE TABLE window_sum (
    model_name text NOT NULL,
    version int NOT NULL,
    window_start_us bigint NOT NULL,
    partition int NOT NULL,
    -- Fingerprint of what the numbers mean.
    layout text NOT NULL,
    sums bytea NOT NULL,
    PRIMARY KEY (model_name, version, window_start_us, partition)
);

-- First truths that the joined watermark has not passed yet, as they came.
CREATE TABLE loss_block (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_name text NOT NULL,
    version int NOT NULL,
    first_known_us bigint NOT NULL,
    last_known_us bigint NOT NULL,
    -- int64 known at, int64 event time, float64 loss, 20 bytes prediction id, column by column.
    row_count int NOT NULL,
    rows bytea NOT NULL
);
CREATE INDEX loss_block_due ON loss_block (model_name, version, first_known_us);

-- Events whose effect is in, until no broker can send them again.
CREATE TABLE heard_event (
    event_id bytea PRIMARY KEY,
    forget_after_us bigint NOT NULL
);
CREATE INDEX heard_event_forget ON heard_event (forget_after_us);

-- The marks of every partition, per topic.
CREATE TABLE watermark (
    topic text PRIMARY KEY,
    marks text NOT NULL,
    current_us bigint
);

-- Values that a topic's watermark has taken and that some model is still to be judged at.
CREATE TABLE mark (
    topic text NOT NULL,
    watermark_us bigint NOT NULL,
    PRIMARY KEY (topic, watermark_us)
);

CREATE TABLE alert (
    alert_id text PRIMARY KEY,
    model_name text NOT NULL,
    version int NOT NULL,
    rule text NOT NULL,
    is_open boolean NOT NULL,
    -- Watermarks of its first and last event; resolved_at_us is NULL while it is open.
    opened_at_us bigint NOT NULL,
    resolved_at_us bigint,
    occurred_at_us bigint NOT NULL,
    body text NOT NULL
);
CREATE UNIQUE INDEX alert_one_open ON alert (model_name, version, rule) WHERE is_open;
CREATE INDEX alert_newest ON alert (model_name, occurred_at_us DESC);

-- Counts of what happened, by name.
CREATE TABLE tally (
    model_name text NOT NULL,
    version int NOT NULL,
    name text NOT NULL,
    total bigint NOT NULL,
    PRIMARY KEY (model_name, version, name)
);

-- What was skipped or could not be judged, one sentence each.
CREATE TABLE remark (
    model_name text NOT NULL,
    version int NOT NULL,
    text text NOT NULL,
    times bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (model_name, version, text)
);
