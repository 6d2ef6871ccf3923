-- Alerts whose rows are to be looked at, or were.
CREATE TABLE deepening (
    alert_id text PRIMARY KEY REFERENCES alert,
    first_at timestamptz NOT NULL DEFAULT now(),
    -- Not before; whoever takes it moves this on, so that no other does.
    next_at timestamptz NOT NULL DEFAULT now(),
    tries int NOT NULL DEFAULT 0,
    done_at timestamptz
);
CREATE INDEX deepening_due ON deepening (next_at) WHERE done_at IS NULL;
-- What was open before is told of no more.
INSERT INTO deepening (alert_id, done_at) SELECT alert_id, now() FROM alert;
