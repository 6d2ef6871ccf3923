-- What is remembered between events, in one row: the policy's state per model and what waits.
CREATE TABLE memory (
    id int PRIMARY KEY CHECK (id = 1),
    content jsonb NOT NULL,
    -- The marks of every source on every partition of the joined topic.
    marks jsonb NOT NULL
);

-- Every run that was ever due; the id says what it is, so a second one of the same is the same.
CREATE TABLE run (
    run_id text PRIMARY KEY,
    -- The order in which runs became due is the order in which they are done.
    number bigint GENERATED ALWAYS AS IDENTITY,
    model_name text NOT NULL,
    trigger text NOT NULL,
    alert_id text NOT NULL,
    follow_up_number int NOT NULL,
    watermark_us bigint NOT NULL,
    reference_rows bigint NOT NULL,
    traceparent text,
    state text NOT NULL CHECK (state IN ('due', 'started', 'ended')),
    -- The last RetrainingRun that was told of it.
    message bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);

CREATE INDEX run_open ON run (number) WHERE state <> 'ended';
CREATE INDEX run_of_model ON run (model_name, number);
