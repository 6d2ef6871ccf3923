-- name: newest_policy
SELECT revision, set_by, (extract(epoch FROM set_at) * 1000000)::bigint AS set_at_us, body
FROM policy WHERE model_name = $1 ORDER BY revision DESC LIMIT 1;

-- name: add_policy
INSERT INTO policy (model_name, revision, set_by, body) VALUES ($1, $2, $3, $4)
RETURNING (extract(epoch FROM set_at) * 1000000)::bigint;

-- name: trust_webhooks_again
DELETE FROM webhook_gone WHERE model_name = $1;

-- name: model_is_known
SELECT EXISTS (SELECT FROM model WHERE model_name = $1);

-- name: read_alert
SELECT body FROM alert WHERE alert_id = $1;

-- name: add_alert_events
INSERT INTO alert_event (alert_id, revision, is_muted, body)
SELECT * FROM unnest($1::text[], $2::int[], $3::bool[], $4::bytea[]) ON CONFLICT DO NOTHING;

-- name: alert_events
SELECT body FROM alert_event WHERE alert_id = $1 ORDER BY revision;

-- name: heard_alerts
-- Of these the ones that webhooks have heard of.
SELECT DISTINCT alert_id FROM alert_event WHERE alert_id = ANY($1) AND NOT is_muted;

-- name: add_acknowledgement
INSERT INTO acknowledgement (alert_id, acknowledged_by, comment) VALUES ($1, $2, $3);

-- name: set_mute
INSERT INTO mute (model_name, rule, feature, segment, until, muted_by, reason)
VALUES ($1, $2, $3, $4, to_timestamp($5::bigint / 1000000.0), $6, $7)
ON CONFLICT (model_name, rule, feature, segment) DO UPDATE
SET until = excluded.until, muted_by = excluded.muted_by, reason = excluded.reason;

-- name: end_mute
DELETE FROM mute WHERE model_name = $1 AND rule = $2 AND feature = $3 AND segment = $4;

-- name: mutes
SELECT model_name, rule, feature, segment, muted_by, reason,
    (extract(epoch FROM until) * 1000000)::bigint AS until_us
FROM mute WHERE model_name = $1 AND until > now() ORDER BY rule, feature, segment;

-- name: is_past
SELECT to_timestamp($1::bigint / 1000000.0) <= now();

-- name: throttles
SELECT rule, segment, last_us FROM throttle WHERE model_name = $1;

-- name: set_throttles
INSERT INTO throttle (model_name, rule, segment, last_us)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[])
ON CONFLICT (model_name, rule, segment) DO UPDATE SET last_us = excluded.last_us;

-- name: add_notifications
-- To a webhook that is gone nothing is posted; that it was not stands in the list.
INSERT INTO notification (notification_id, model_name, webhook_name, alert_id, alert_revision,
    body, is_given_up, error)
SELECT n.*, g.webhook_name IS NOT NULL,
    CASE WHEN g.webhook_name IS NULL THEN '' ELSE 'it answered 410 Gone before; set the policy anew' END
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[])
    AS n (notification_id, model_name, webhook_name, alert_id, alert_revision, body)
LEFT JOIN webhook_gone AS g USING (model_name, webhook_name)
ON CONFLICT DO NOTHING;

-- name: claim_notifications
-- The one due longest of each webhook; who claims them has $1 seconds before somebody else may.
WITH due AS (
    SELECT DISTINCT ON (model_name, webhook_name) notification_id FROM notification
    WHERE delivered_at IS NULL AND NOT is_given_up AND next_try_at <= now()
    ORDER BY model_name, webhook_name, next_try_at, created_at, alert_revision
), claimed AS (
    SELECT notification_id FROM notification JOIN due USING (notification_id)
    WHERE delivered_at IS NULL AND NOT is_given_up AND next_try_at <= now()
    LIMIT $2 FOR UPDATE OF notification SKIP LOCKED
)
UPDATE notification SET next_try_at = now() + make_interval(secs => $1), tries = tries + 1
FROM claimed WHERE notification.notification_id = claimed.notification_id
RETURNING notification.*, extract(epoch FROM now())::bigint AS now_seconds,
    extract(epoch FROM now() - created_at)::float8 AS age_seconds;

-- name: next_due_seconds
SELECT extract(epoch FROM min(next_try_at) - now())::float8 FROM notification
WHERE delivered_at IS NULL AND NOT is_given_up;

-- name: note_delivered
UPDATE notification SET delivered_at = now(), error = '' WHERE notification_id = $1;

-- name: note_failed
UPDATE notification SET error = $2, is_given_up = $3,
    next_try_at = now() + make_interval(secs => $4)
WHERE notification_id = $1 AND delivered_at IS NULL;

-- name: note_gone
WITH gone AS (
    INSERT INTO webhook_gone (model_name, webhook_name) VALUES ($1, $2) ON CONFLICT DO NOTHING
)
UPDATE notification SET is_given_up = true, error = $3
WHERE model_name = $1 AND webhook_name = $2 AND delivered_at IS NULL AND NOT is_given_up;

-- name: notifications
SELECT *, (extract(epoch FROM delivered_at) * 1000000)::bigint AS delivered_at_us
FROM notification WHERE $1 = '' OR model_name = $1
ORDER BY created_at DESC, notification_id LIMIT $2;
