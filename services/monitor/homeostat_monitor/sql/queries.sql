-- name: add_models
INSERT INTO model (model_name) SELECT DISTINCT unnest($1::text[]) ORDER BY 1 ON CONFLICT DO NOTHING;

-- name: share_models
-- Judging waits until this transaction has ended, so that no row slips into a window being closed.
SELECT model_name FROM model WHERE model_name = ANY($1) ORDER BY model_name FOR SHARE;

-- name: lock_model
SELECT * FROM model WHERE model_name = $1 FOR UPDATE;

-- name: add_versions
-- An unknown version is watched unless it is older than the champion.
INSERT INTO version (model_name, version, is_watched)
SELECT g.model_name, g.version, coalesce(
    g.version >= (SELECT champion_version FROM model AS m WHERE m.model_name = g.model_name), true)
FROM unnest($1::text[], $2::int[]) AS g (model_name, version)
WHERE NOT EXISTS (
    SELECT FROM version AS v WHERE v.model_name = g.model_name AND v.version = g.version)
ORDER BY 1, 2
ON CONFLICT DO NOTHING;

-- name: read_versions
SELECT v.* FROM version AS v
JOIN unnest($1::text[], $2::int[]) AS g (model_name, version) USING (model_name, version);

-- name: read_models
SELECT model_name, losses_until_us FROM model WHERE model_name = ANY($1::text[]);

-- name: read_version
SELECT * FROM version WHERE model_name = $1 AND version = $2;

-- name: watched_versions
SELECT * FROM version WHERE model_name = $1 AND is_watched ORDER BY version;

-- name: save_version
UPDATE version SET closed_until_us = $3, judge_from_us = $4, windows_judged = $5, window_us = $6,
    accepted = $7, first_judged_us = $8
WHERE model_name = $1 AND version = $2;

-- name: promote
UPDATE model SET champion_version = $2, revision = $3 WHERE model_name = $1;

-- name: raise_revision
UPDATE model SET revision = $2 WHERE model_name = $1 AND revision < $2;

-- name: unwatch_others
UPDATE version SET is_watched = false WHERE model_name = $1 AND version <> $2 AND is_watched;

-- name: watch
-- A version that comes back begins afresh.
INSERT INTO version (model_name, version, is_watched, serving_since_us) VALUES ($1, $2, true, $3)
ON CONFLICT (model_name, version) DO UPDATE
SET is_watched = true, serving_since_us = excluded.serving_since_us,
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
JOIN unnest($1::text[], $2::int[], $3::text[], $4::bigint[], $5::int[])
    AS g (model_name, version, segment, window_start_us, partition)
    USING (model_name, version, segment, window_start_us, partition);

-- name: replace_sums
INSERT INTO window_sum
    (model_name, version, segment, window_start_us, partition, end_us, layout, sums)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::bigint[], $5::int[], $6::bigint[],
    $7::text[], $8::bytea[])
ON CONFLICT (model_name, version, segment, window_start_us, partition)
DO UPDATE SET layout = excluded.layout, sums = excluded.sums;

-- name: closed_sums
SELECT segment, window_start_us, layout, sums FROM window_sum
WHERE model_name = $1 AND version = $2 AND end_us <= $3
ORDER BY segment, window_start_us, partition;

-- name: drop_sums
DELETE FROM window_sum
WHERE model_name = $1 AND version = $2 AND segment = $3 AND window_start_us < $4;

-- name: add_losses
INSERT INTO loss_block
    (model_name, version, first_known_us, last_known_us, row_count, rows, form)
SELECT *, 1 FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::int[], $6::bytea[]);

-- name: due_losses
SELECT row_count, rows, form FROM loss_block
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
-- What of the inputs stood open at a watermark. Not what truths told: whether such an alert is
-- stored yet depends on how the marks came.
SELECT body FROM alert
WHERE model_name = $1 AND version = $2 AND rule <> ALL($4::text[]) AND NOT of_truths
    AND opened_at_us <= $3
    AND (resolved_at_us IS NULL OR resolved_at_us > $3)
ORDER BY alert_id;

-- name: open_alerts_of_others
SELECT body FROM alert WHERE model_name = $1 AND version <> $2 AND is_open ORDER BY alert_id;

-- name: save_alerts
INSERT INTO alert (alert_id, model_name, version, rule, segment, is_open, opened_at_us,
    resolved_at_us, occurred_at_us, of_truths, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::bool[],
    $7::bigint[], $8::bigint[], $9::bigint[], $10::bool[], $11::text[])
ON CONFLICT (alert_id) DO UPDATE SET is_open = excluded.is_open, of_truths = excluded.of_truths,
    resolved_at_us = excluded.resolved_at_us, occurred_at_us = excluded.occurred_at_us,
    body = excluded.body, stored_at = now();

-- name: list_alerts
SELECT body FROM alert WHERE model_name = $1 AND (is_open OR NOT $2)
ORDER BY occurred_at_us DESC, alert_id LIMIT $3;

-- name: list_all_alerts
SELECT body FROM alert WHERE is_open OR NOT $1
ORDER BY occurred_at_us DESC, alert_id LIMIT $2;

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
-- Models that have something to judge at the marks that were reached.
SELECT count(*)::bigint FROM due WHERE windows_us <= $1 OR losses_us < $2;

-- name: drop_marks
-- Nobody is to be judged at them any more; the newest stay for rows that are being taken in, and
-- the first of every hour for those who play the past again.
DELETE FROM mark AS m WHERE topic = $1
    AND watermark_us < (SELECT watermark_us FROM mark WHERE topic = $1
        ORDER BY watermark_us DESC OFFSET 255 LIMIT 1)
    AND watermark_us < coalesce(
        (SELECT min(CASE WHEN $2 THEN windows_us ELSE losses_us END) FROM due),
        9223372036854775807)
    AND (EXISTS (SELECT FROM mark AS e WHERE e.topic = $1 AND e.watermark_us < m.watermark_us
            AND e.watermark_us >= m.watermark_us - m.watermark_us % 3600000000)
        OR m.watermark_us < (SELECT max(watermark_us) FROM mark WHERE topic = $1)
            - 400 * 86400000000);

-- name: past_marks
SELECT watermark_us FROM mark WHERE topic = $1 ORDER BY watermark_us;

-- name: promotions
SELECT version, serving_since_us FROM version
WHERE model_name = $1 AND serving_since_us IS NOT NULL ORDER BY serving_since_us, version;

-- name: drop_states_of_unwatched
DELETE FROM detector_state AS d USING version AS v
WHERE d.model_name = $1 AND v.model_name = $1 AND v.version = d.version AND NOT v.is_watched;

-- name: drop_history_of_unwatched
DELETE FROM closed_window AS d USING version AS v
WHERE d.model_name = $1 AND v.model_name = $1 AND v.version = d.version AND NOT v.is_watched;

-- name: raise_due
-- What comes in is due no later than what waits.
INSERT INTO due AS d (model_name, windows_us, losses_us)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])
ON CONFLICT (model_name) DO UPDATE
SET windows_us = least(d.windows_us, excluded.windows_us),
    losses_us = least(d.losses_us, excluded.losses_us)
WHERE d.windows_us IS DISTINCT FROM least(d.windows_us, excluded.windows_us)
    OR d.losses_us IS DISTINCT FROM least(d.losses_us, excluded.losses_us);

-- name: settle_due
-- After judging up to two marks: what waits for later ones. A sum that ended before is too thin
-- by itself and waits for the next.
INSERT INTO due (model_name, windows_us, losses_us) VALUES ($1,
    least($4::bigint, (SELECT min(end_us) FROM window_sum
        WHERE model_name = $1 AND end_us > coalesce($2::bigint, -9223372036854775808))),
    least($5::bigint, (SELECT CASE WHEN count(*) > 0 THEN greatest(min(first_known_us), $3::bigint) END
        FROM loss_block WHERE model_name = $1)))
ON CONFLICT (model_name) DO UPDATE
SET windows_us = excluded.windows_us, losses_us = excluded.losses_us;

-- name: read_due
-- What is due of a model, and the watermark that was reached.
SELECT windows_us, losses_us, (SELECT current_us FROM watermark WHERE topic = $2) AS reached_us
FROM due WHERE model_name = $1;

-- name: due_models
-- Models that have something to judge at the marks that were reached, those that waited longest
-- first.
SELECT model_name FROM (
    (SELECT model_name, windows_us AS at_us FROM due WHERE windows_us <= $1
        ORDER BY windows_us LIMIT $3)
    UNION ALL
    (SELECT model_name, losses_us FROM due WHERE losses_us < $2 ORDER BY losses_us LIMIT $3)
) AS each
GROUP BY model_name ORDER BY min(at_us) LIMIT $3;

-- name: reached
-- The predictions' mark, and the newest mark of what was joined that it has passed too.
SELECT w.current_us AS windows_us,
    (SELECT max(watermark_us) FROM mark WHERE topic = $2 AND watermark_us <= w.current_us)
        AS losses_us
FROM watermark AS w WHERE w.topic = $1;

-- name: lock_watermark
-- Monitors that share a topic take turns.
INSERT INTO watermark (topic, marks) VALUES ($1, '[]')
ON CONFLICT (topic) DO UPDATE SET topic = excluded.topic RETURNING marks, current_us, epoch;

-- name: state_revisions
SELECT segment, name, revision FROM detector_state WHERE model_name = $1 AND version = $2;

-- name: read_state
SELECT state, revision FROM detector_state
WHERE model_name = $1 AND version = $2 AND segment = $3 AND name = $4;

-- name: save_states
INSERT INTO detector_state (model_name, version, segment, name, state)
SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::bytea[])
ON CONFLICT (model_name, version, segment, name)
DO UPDATE SET state = excluded.state, revision = nextval('detector_revision')
RETURNING segment, name, revision;

-- name: all_states
SELECT segment, name, state FROM detector_state WHERE model_name = $1 AND version = $2;

-- name: add_rebuild
INSERT INTO rebuild_due (model_name, version, segment, name) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING;

-- name: rebuilds
SELECT segment, name FROM rebuild_due WHERE model_name = $1 AND version = $2 ORDER BY segment, name;

-- name: add_closed
INSERT INTO closed_window (model_name, version, segment, start_us, end_us, layout, sums)
SELECT $1, $2, g.segment, g.start_us, g.end_us, $3, g.sums
FROM unnest($4::text[], $5::bigint[], $6::bigint[], $7::bytea[])
    AS g (segment, start_us, end_us, sums)
ON CONFLICT (model_name, version, segment, start_us)
DO UPDATE SET end_us = excluded.end_us, layout = excluded.layout, sums = excluded.sums;

-- name: closed_windows
SELECT start_us, end_us, sums FROM closed_window
WHERE model_name = $1 AND version = $2 AND segment = $3 AND layout = $4 ORDER BY start_us;

-- name: drop_closed
DELETE FROM closed_window WHERE model_name = $1 AND version = $2 AND segment = $3;

-- name: add_block_segments
INSERT INTO block_segment (block_id, names, bits, forget_after_us)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::bigint[]) ON CONFLICT DO NOTHING;

-- name: block_segments
SELECT block_id, names, bits FROM block_segment WHERE block_id = ANY($1::bytea[]);

-- name: forget_block_segments
DELETE FROM block_segment WHERE forget_after_us < $1;

-- name: policy_revisions
SELECT model_name, max(revision) AS revision FROM policy GROUP BY model_name;

-- name: policies_of
SELECT DISTINCT ON (model_name) model_name, body FROM policy
WHERE model_name = ANY($1::text[]) ORDER BY model_name, revision DESC;

-- name: heartbeat
INSERT INTO instance (name, seen_at) VALUES ($1, now())
ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at;

-- name: instances
SELECT name FROM instance WHERE seen_at > now() - make_interval(secs => $1) ORDER BY name;

-- name: leave
DELETE FROM instance WHERE name = $1;
