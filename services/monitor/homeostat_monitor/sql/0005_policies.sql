-- Every revision of a model's policy; the highest holds.
CREATE TABLE policy (
    model_name text NOT NULL REFERENCES model,
    -- Counts from 1.
    revision int NOT NULL,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    -- JSON, as domain/policy.py writes it.
    body text NOT NULL,
    PRIMARY KEY (model_name, revision)
);

-- Every event of an alert's life, as it went to the topic.
CREATE TABLE alert_event (
    alert_id text NOT NULL,
    revision int NOT NULL,
    -- Told to no webhook.
    is_muted boolean NOT NULL,
    told_at timestamptz NOT NULL DEFAULT now(),
    -- The message homeostat.events.v1.Alert.
    body bytea NOT NULL,
    PRIMARY KEY (alert_id, revision)
);

-- Who said that they have seen an alert, and what they said; each time once more.
CREATE TABLE acknowledgement (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id text NOT NULL,
    acknowledged_by text NOT NULL,
    comment text NOT NULL,
    acknowledged_at timestamptz NOT NULL DEFAULT now()
);

-- Silence for webhooks; empty texts mean every rule, feature, segment.
CREATE TABLE mute (
    model_name text NOT NULL,
    rule text NOT NULL,
    feature text NOT NULL,
    segment text NOT NULL,
    until timestamptz NOT NULL,
    muted_by text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (model_name, rule, feature, segment)
);

-- When webhooks last heard of a new alert of a rule and segment, in event time.
CREATE TABLE throttle (
    model_name text NOT NULL,
    rule text NOT NULL,
    segment text NOT NULL,
    last_us bigint NOT NULL,
    PRIMARY KEY (model_name, rule, segment)
);

-- What is to be posted, and what was: the outbox of webhooks.
CREATE TABLE notification (
    -- The header webhook-id, the same on every try.
    notification_id text PRIMARY KEY,
    model_name text NOT NULL,
    webhook_name text NOT NULL,
    alert_id text NOT NULL,
    alert_revision int NOT NULL,
    -- What is posted, byte for byte.
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    tries int NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz,
    -- Why the last try failed.
    error text NOT NULL DEFAULT '',
    is_given_up boolean NOT NULL DEFAULT false
);
CREATE INDEX notification_due ON notification (next_try_at)
    WHERE delivered_at IS NULL AND NOT is_given_up;
CREATE INDEX notification_newest ON notification (model_name, created_at DESC);

-- Webhooks that answered 410 Gone: nothing is posted there until the policy is set anew.
CREATE TABLE webhook_gone (
    model_name text NOT NULL,
    webhook_name text NOT NULL,
    gone_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_name, webhook_name)
);
