-- name: note_fault
INSERT INTO judging_fault AS f (model_name, error) VALUES ($1, $2)
ON CONFLICT (model_name) DO UPDATE SET error = excluded.error, times = f.times + 1;

-- name: end_fault
DELETE FROM judging_fault WHERE model_name = $1;

-- name: end_faults_not_due
-- Whoever judged it: what failed has nothing due any more.
DELETE FROM judging_fault AS f WHERE NOT EXISTS (SELECT FROM due AS d
    WHERE d.model_name = f.model_name AND (d.windows_us <= $1 OR d.losses_us < $2));

-- name: faults
SELECT model_name FROM judging_fault ORDER BY model_name;

-- name: fault_of
SELECT error, times, (extract(epoch FROM since) * 1000000)::bigint AS since_us
FROM judging_fault WHERE model_name = $1;

-- name: drop_alerts
-- With all that is told of them. How often a level was accepted is asked of versions in service.
WITH old AS (
    SELECT alert_id FROM alert AS a
    WHERE NOT is_open AND stored_at < now() - make_interval(days => $1)
        AND NOT (coalesce(body::json ->> 'resolution', '') = 'accepted'
            AND EXISTS (SELECT FROM version AS v WHERE v.model_name = a.model_name AND v.version = a.version AND v.is_watched))
    ORDER BY stored_at LIMIT $2 FOR UPDATE SKIP LOCKED
), events AS (
    DELETE FROM alert_event AS e USING old WHERE e.alert_id = old.alert_id
), acknowledgements AS (
    DELETE FROM acknowledgement AS k USING old WHERE k.alert_id = old.alert_id
), looked AS (
    DELETE FROM deepening AS d USING old WHERE d.alert_id = old.alert_id
)
DELETE FROM alert AS a USING old WHERE a.alert_id = old.alert_id;

-- name: drop_deepening
-- Of an open alert it stays: what has none is looked into.
DELETE FROM deepening WHERE alert_id IN (
    SELECT alert_id FROM deepening AS d JOIN alert AS a USING (alert_id)
    WHERE d.done_at < now() - make_interval(days => $1) AND NOT a.is_open
    ORDER BY d.done_at LIMIT $2);

-- name: drop_notifications
DELETE FROM notification WHERE notification_id IN (
    SELECT notification_id FROM notification
    WHERE (delivered_at IS NOT NULL OR is_given_up)
        AND created_at < now() - make_interval(days => $1)
    ORDER BY created_at LIMIT $2);

-- name: drop_mutes
DELETE FROM mute WHERE (model_name, rule, feature, segment) IN (
    SELECT model_name, rule, feature, segment FROM mute
    WHERE until < now() - make_interval(days => $1) LIMIT $2);
