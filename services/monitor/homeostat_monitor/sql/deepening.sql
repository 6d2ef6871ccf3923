-- name: note_new
INSERT INTO deepening (alert_id)
SELECT alert_id FROM alert AS a
WHERE is_open AND NOT EXISTS (SELECT FROM deepening AS d WHERE d.alert_id = a.alert_id)
ON CONFLICT DO NOTHING;

-- name: claim
WITH taken AS (
    UPDATE deepening SET tries = tries + 1, next_at = now() + make_interval(secs => $1)
    WHERE alert_id = (
        SELECT alert_id FROM deepening WHERE done_at IS NULL AND next_at <= now()
        ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING *
)
SELECT a.body, t.tries, extract(epoch FROM now() - t.first_at)::float8 AS age_seconds
FROM taken AS t JOIN alert AS a USING (alert_id);

-- name: postpone
UPDATE deepening SET next_at = now() + make_interval(secs => $2) WHERE alert_id = $1;

-- name: finish
UPDATE deepening SET done_at = now() WHERE alert_id = $1 AND done_at IS NULL RETURNING alert_id;

-- name: read_alert
SELECT body FROM alert WHERE alert_id = $1;
