-- name: lock_memory
SELECT content, marks FROM memory WHERE id = 1 FOR UPDATE;

-- name: save_memory
INSERT INTO memory (id, content, marks) VALUES (1, $1::jsonb, $2::jsonb)
ON CONFLICT (id) DO UPDATE SET content = excluded.content, marks = excluded.marks;

-- name: read_watermark
SELECT (content ->> 'watermark_us')::bigint FROM memory WHERE id = 1;

-- name: add_run
-- True where it was not there before.
INSERT INTO run (run_id, model_name, trigger, alert_id, follow_up_number, watermark_us,
    reference_rows, traceparent, state, message, ended_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN $9 = 'ended' THEN now() END)
ON CONFLICT (run_id) DO NOTHING
RETURNING true;

-- name: next_run
SELECT run_id, model_name, trigger, alert_id, follow_up_number, watermark_us, reference_rows,
    traceparent, state
FROM run WHERE state <> 'ended' ORDER BY number LIMIT 1;

-- name: move_run
-- Forwards only: a run that ended stays as it ended.
UPDATE run SET state = $2, message = $3, ended_at = CASE WHEN $2 = 'ended' THEN now() END
WHERE run_id = $1 AND (state = 'due' OR (state = 'started' AND $2 = 'ended'))
RETURNING true;

-- name: count_open_work
-- Runs that are due or under way, and alerts that wait for the watermark.
SELECT (SELECT count(*) FROM run WHERE state <> 'ended')
    + coalesce((SELECT jsonb_array_length(content -> 'held') FROM memory WHERE id = 1), 0);

-- name: list_runs
SELECT message, run_id, model_name, trigger, alert_id, follow_up_number, watermark_us
FROM run WHERE $1 = '' OR model_name = $1 ORDER BY number DESC LIMIT $2;

-- name: get_run
SELECT message, run_id, model_name, trigger, alert_id, follow_up_number, watermark_us
FROM run WHERE run_id = $1;
