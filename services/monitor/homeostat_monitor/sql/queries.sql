-- name: add_models
INSERT INTO model (model_name) SELECT DISTINCT unnest($1::text[]) ORDER BY 1 ON CONFLICT DO NOTHING;

-- name: share_models
-- Judging waits until this transaction has ended, so that no row slips into a window being closed.
SELECT model_name FROM model WHERE model_name = ANY($1) ORDER BY model_name FOR SHARE;

-- name: lock_model
SELECT * FROM model WHERE model_name = $1 FOR UPDATE;

-- name: add_version
-- An unknown version is watched unless it is older than the champion.
INSERT INTO version (model_name, version, is_watched)
SELECT $1, $2, coalesce($2 >= (SELECT champion_version FROM model WHERE model_name = $1), true)
ON CONFLICT DO NOTHING;

-- name: read_version
SELECT * FROM version WHERE model_name = $1 AND version = $2;

-- name: watched_versions
SELECT * FROM version WHERE model_name = $1 AND is_watched ORDER BY version;

-- name: save_version
UPDATE version SET closed_until_us = $3, judge_from_us = $4, windows_judged = $5, window_us = $6,
    loss_state = $7, accepted = $8,
    first_judged_us = $9
WHERE model_name = $1 AND version = $2;

-- name: promote
UPDATE model SET champion_version = $2, revision = $3 WHERE model_name = $1;

-- name: raise_revision
UPDATE model SET revision = $2 WHERE model_name = $1 AND revision < $2;

-- name: unwatch_others
UPDATE version SET is_watched = false WHERE model_name = $1 AND version <> $2 AND is_watched;

-- name: watch
-- A version that comes back begins afresh.
INSERT INTO version (model_name, version, is_watched) VALUES ($1, $2, true)
ON CONFLICT (model_name, version) DO UPDATE
SET is_watched = true,
    loss_state = CASE WHEN version.is_watched THEN version.loss_state END,
    accepted = CASE WHEN version.is_watched THEN version.accepted ELSE '{}' END;

-- name: drop_sums_of_others
DELETE FROM window_sum WHERE model_name = $1 AND version <> $2;

-- name: drop_losses_of_others
DELETE FROM loss_block WHERE model_name = $1 AND version <> $2;

-- name: hear
-- Which of these events are new; DO NOTHING also takes care of repeats among themselves.
INSERT INTO heard_event (event_id, forget_after_us)
SELECT * FROM unnest($1::bytea[], $2::bigint[]) ON CONFLICT DO NOTHING RETURNING event_id;

-- name: forget
DELETE FROM heard_event WHERE forget_after_us < $1;

-- name: read_sums
SELECT w.* FROM window_sum AS w
JOIN unnest($1::text[], $2::int[], $3::bigint[], $4::int[])
    AS g (model_name, version, window_start_us, partition)
    USING (model_name, version, window_start_us, partition);

-- name: replace_sums
INSERT INTO window_sum (model_name, version, window_start_us, partition, layout, sums)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::int[], $5::text[], $6::bytea[])
ON CONFLICT (model_name, version, window_start_us, partition)
DO UPDATE SET layout = excluded.layout, sums = excluded.sums;

-- name: closed_sums
SELECT window_start_us, layout, sums FROM window_sum
WHERE model_name = $1 AND version = $2 AND window_start_us < $3
ORDER BY window_start_us, partition;

-- name: drop_sums
DELETE FROM window_sum WHERE model_name = $1 AND version = $2 AND window_start_us < $3;

-- name: add_losses
INSERT INTO loss_block (model_name, version, first_known_us, last_known_us, row_count, rows)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::int[], $6::bytea[]);

-- name: due_losses
SELECT row_count, rows FROM loss_block
WHERE model_name = $1 AND version = $2 AND first_known_us < $3;

-- name: drop_losses
DELETE FROM loss_block WHERE model_name = $1 AND version = $2 AND last_known_us < $3;

-- name: read_watermark
SELECT marks, current_us, epoch FROM watermark WHERE topic = $1;

-- name: save_watermark
INSERT INTO watermark (topic, marks, current_us, epoch) VALUES ($1, $2, $3, $4)
ON CONFLICT (topic) DO UPDATE SET marks = excluded.marks, current_us = excluded.current_us,
    epoch = excluded.epoch;

-- name: add_marks
INSERT INTO mark (topic, watermark_us) SELECT $1, unnest($2::bigint[]) ON CONFLICT DO NOTHING;

-- name: marks_after
SELECT watermark_us FROM mark
WHERE topic = $1 AND watermark_us > coalesce($2::bigint, -9223372036854775808) AND watermark_us <= $3
ORDER BY watermark_us LIMIT $4;

-- name: save_model
UPDATE model SET windows_until_us = $2, losses_until_us = $3 WHERE model_name = $1;

-- name: open_alerts
SELECT body FROM alert WHERE model_name = $1 AND version = $2 AND is_open ORDER BY alert_id;

-- name: input_alerts_at
-- What of the inputs stood open at a watermark. Not the loss: whether its alert is stored yet
-- depends on how the marks came.
SELECT body FROM alert
WHERE model_name = $1 AND version = $2 AND rule <> 'performance' AND opened_at_us <= $3
    AND (resolved_at_us IS NULL OR resolved_at_us > $3);

-- name: open_alerts_of_others
SELECT body FROM alert WHERE model_name = $1 AND version <> $2 AND is_open ORDER BY alert_id;

-- name: save_alerts
INSERT INTO alert (alert_id, model_name, version, rule, is_open, opened_at_us, resolved_at_us,
    occurred_at_us, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bool[], $6::bigint[],
    $7::bigint[], $8::bigint[], $9::text[])
ON CONFLICT (alert_id) DO UPDATE SET is_open = excluded.is_open,
    resolved_at_us = excluded.resolved_at_us, occurred_at_us = excluded.occurred_at_us,
    body = excluded.body;

-- name: list_alerts
SELECT body FROM alert WHERE ($1 = '' OR model_name = $1) AND (is_open OR NOT $2)
ORDER BY occurred_at_us DESC, alert_id LIMIT $3;

-- name: add_tallies
INSERT INTO tally AS t (model_name, version, name, total)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::bigint[])
ON CONFLICT (model_name, version, name) DO UPDATE SET total = t.total + excluded.total;

-- name: add_remarks
INSERT INTO remark AS r (model_name, version, text)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[])
ON CONFLICT (model_name, version, text) DO UPDATE SET times = r.times + 1;

-- name: read_tallies
SELECT name, sum(total)::bigint AS total FROM tally WHERE model_name = $1 AND version = $2
GROUP BY name;

-- name: read_remarks
SELECT text, times FROM remark WHERE model_name = $1 AND version = $2 ORDER BY text;

-- name: read_model
SELECT * FROM model WHERE model_name = $1;

-- name: newest_version
SELECT * FROM version WHERE model_name = $1 AND is_watched ORDER BY version DESC LIMIT 1;

-- name: count_open_alerts
SELECT count(*) FROM alert WHERE model_name = $1 AND is_open;

-- name: models
SELECT model_name FROM model ORDER BY model_name;

-- name: open_work
-- Marks that models are still to be judged at: windows at the predictions' marks, losses at the
-- joined ones that the predictions have reached too.
SELECT coalesce(sum(
    (SELECT count(*) FROM mark WHERE topic = $1
        AND (windows_until_us IS NULL OR watermark_us > windows_until_us))
    + (SELECT count(*) FROM mark WHERE topic = $2
        AND (losses_until_us IS NULL OR watermark_us > losses_until_us)
        AND watermark_us <= (SELECT current_us FROM watermark WHERE topic = $1))
), 0)::bigint FROM model;

-- name: drop_marks
-- Judged by every model; the newest stays for models to come.
DELETE FROM mark WHERE topic = $1
    AND watermark_us < (SELECT max(watermark_us) FROM mark WHERE topic = $1)
    AND watermark_us <= (SELECT min(CASE WHEN $2 THEN windows_until_us ELSE losses_until_us END)
        FROM model);
