-- Models whose judging fails while others' goes on: shown by health until they are judged again.
CREATE TABLE judging_fault (
    model_name text PRIMARY KEY REFERENCES model,
    -- The error's class; the log has the rest.
    error text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    times bigint NOT NULL DEFAULT 1
);

-- When it was stored last, by the database's clock: event times of a played past are long ago.
ALTER TABLE alert ADD COLUMN stored_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX alert_ended ON alert (stored_at) WHERE NOT is_open;
-- Alerts of all models, newest first.
CREATE INDEX alert_newest_of_all ON alert (occurred_at_us DESC, alert_id);
CREATE INDEX deepening_done ON deepening (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX acknowledgement_of ON acknowledgement (alert_id);
CREATE INDEX notification_ended ON notification (created_at)
    WHERE delivered_at IS NOT NULL OR is_given_up;
