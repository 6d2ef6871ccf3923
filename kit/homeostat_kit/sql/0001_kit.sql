-- How far this service has applied each partition, per life of the broker (its cluster id).
CREATE TABLE consumer_offset (
    epoch text NOT NULL,
    topic text NOT NULL,
    partition int NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (epoch, topic, partition)
);

-- Events committed with the state they tell of; the relay sends them in order of id.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    -- NULL: by the hash of the key.
    partition int,
    key bytea NOT NULL,
    value bytea NOT NULL,
    event_id text NOT NULL,
    occurred_at_us bigint NOT NULL,
    traceparent text,
    -- The broker's life in which it was acknowledged, and where; NULL: not yet.
    sent_epoch text,
    sent_partition int,
    sent_offset bigint
);

CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_epoch IS NULL;

-- Where the relay's acknowledged records end.
CREATE TABLE outbox_position (
    epoch text NOT NULL,
    topic text NOT NULL,
    partition int NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (epoch, topic, partition)
);

-- Who may do what only one may do at a time; the token rises with every new holder.
CREATE TABLE lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    token bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
