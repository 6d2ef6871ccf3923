-- One process writes at a time. A newer one takes the next token, and the older one's transactions
-- then fail. The counters hand out numbers that COPY needs beforehand.
CREATE TABLE writer (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    token bigint NOT NULL,
    next_block_number bigint NOT NULL,
    next_part_id bigint NOT NULL
);
INSERT INTO writer VALUES (true, 0, 1, 1);

-- What is counted stands with the model, so that it is exact at every commit.
CREATE TABLE model (
    model_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_name text NOT NULL UNIQUE,
    predictions bigint NOT NULL DEFAULT 0,
    blocks bigint NOT NULL DEFAULT 0,
    history_rows bigint NOT NULL DEFAULT 0,
    outcomes_received bigint NOT NULL DEFAULT 0,
    predictions_joined bigint NOT NULL DEFAULT 0,
    outcomes_parked bigint NOT NULL DEFAULT 0,
    outcomes_dead_lettered bigint NOT NULL DEFAULT 0,
    outcomes_repeated bigint NOT NULL DEFAULT 0,
    corrections bigint NOT NULL DEFAULT 0,
    -- An unsigned 64-bit number in a signed one's bits.
    joined_checksum bigint NOT NULL DEFAULT 0,
    duplicate_blocks bigint NOT NULL DEFAULT 0
);

CREATE TABLE archive_file (
    file_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id int NOT NULL REFERENCES model,
    layout text NOT NULL,
    file_name text NOT NULL UNIQUE,
    row_count int NOT NULL,
    byte_count bigint NOT NULL
);
CREATE INDEX archive_file_of_model ON archive_file (model_id, layout, file_id);

-- What was written at once. Merging files moves parts; blocks and truths name parts and never change.
CREATE TABLE archive_part (
    part_id bigint PRIMARY KEY,
    file_id bigint NOT NULL REFERENCES archive_file,
    first_row int NOT NULL
);
CREATE INDEX archive_part_of_file ON archive_part (file_id);

CREATE TABLE prediction_block (
    block_number bigint PRIMARY KEY,
    block_id bytea NOT NULL UNIQUE CHECK (octet_length(block_id) = 16),
    model_id int NOT NULL REFERENCES model,
    version int NOT NULL,
    arm smallint NOT NULL,
    task smallint NOT NULL,
    row_count int NOT NULL CHECK (row_count > 0),
    min_event_us bigint NOT NULL,
    max_event_us bigint NOT NULL,
    part_id bigint NOT NULL REFERENCES archive_part,
    -- Of the block's first row in its part.
    part_row int NOT NULL,
    event_times bytea NOT NULL,
    scores bytea NOT NULL,
    decisions bytea NOT NULL,
    client_keys bytea,
    -- A PredictionBlock with its context columns only.
    contexts bytea NOT NULL
);
-- Packed floats don't compress; trying costs time.
ALTER TABLE prediction_block
    ALTER COLUMN event_times SET STORAGE EXTERNAL,
    ALTER COLUMN scores SET STORAGE EXTERNAL,
    ALTER COLUMN decisions SET STORAGE EXTERNAL,
    ALTER COLUMN client_keys SET STORAGE EXTERNAL,
    ALTER COLUMN contexts SET STORAGE EXTERNAL;
CREATE INDEX prediction_block_of_arm ON prediction_block (model_id, arm, block_number);

-- Which predictions stand under a client's own id: halves of its key.
CREATE TABLE client_row (
    key_high bigint NOT NULL,
    key_low bigint NOT NULL,
    block_number bigint NOT NULL,
    row_index int NOT NULL,
    model_id int NOT NULL
);
CREATE INDEX client_row_by_key ON client_row (key_high);

CREATE TABLE source (
    source_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_name text NOT NULL UNIQUE
);

-- Every truth that was ever told of a prediction; rows are added, never changed.
CREATE TABLE truth (
    block_number bigint NOT NULL,
    known_at_us bigint NOT NULL,
    event_time_us bigint NOT NULL,
    truth double precision NOT NULL,
    -- The outcome block's id and row: of two truths known at once the greater holds.
    event_high bigint NOT NULL,
    event_low bigint NOT NULL,
    part_id bigint NOT NULL,
    part_row int NOT NULL,
    row_index int NOT NULL,
    event_row bigint NOT NULL,
    -- 1 for the first that was news, one more per correction; 0 for what changed nothing.
    revision int NOT NULL,
    source_id int NOT NULL,
    model_id int NOT NULL,
    arm smallint NOT NULL,
    by_client boolean NOT NULL
);
CREATE INDEX truth_of_prediction ON truth (block_number, row_index);
CREATE INDEX truth_by_known_at ON truth (model_id, known_at_us);

-- Truth whose prediction has not come (yet).
CREATE TABLE parked (
    parked_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id int NOT NULL REFERENCES model,
    -- Halves of the client key or of the block id.
    high bigint NOT NULL,
    low bigint NOT NULL,
    -- The prediction's row, or -1 where a client key is meant.
    row_index bigint NOT NULL,
    truth double precision NOT NULL,
    known_at_us bigint NOT NULL,
    event_high bigint NOT NULL,
    event_low bigint NOT NULL,
    event_row bigint NOT NULL,
    source_id int NOT NULL
);
CREATE INDEX parked_by_key ON parked (high);
CREATE INDEX parked_by_known_at ON parked (known_at_us);

CREATE TABLE outcome_block (
    block_id bytea PRIMARY KEY CHECK (octet_length(block_id) = 16)
);

CREATE TABLE history (
    model_id int NOT NULL REFERENCES model,
    history_id text NOT NULL,
    row_count bigint NOT NULL,
    PRIMARY KEY (model_id, history_id)
);

-- Marks belong to a broker's life; what was promised to subscribers outlives it.
CREATE TABLE watermark (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    epoch text NOT NULL,
    marks text NOT NULL,
    forwarded_us bigint
);
