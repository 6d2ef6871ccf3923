-- name: become_writer
UPDATE writer SET token = token + 1 RETURNING token;

-- name: hold_writer
-- Locks out other writers; hands out numbers. No row: superseded.
UPDATE writer
SET next_block_number = next_block_number + $2, next_part_id = next_part_id + $3
WHERE token = $1
RETURNING next_block_number - $2 AS block_number, next_part_id - $3 AS part_id;

-- name: add_model
INSERT INTO model (model_name) VALUES ($1) RETURNING *;

-- name: read_model
SELECT * FROM model WHERE model_name = $1;

-- name: add_source
INSERT INTO source (source_name) VALUES ($1) RETURNING source_id;

-- name: read_source
SELECT source_id FROM source WHERE source_name = $1;

-- name: known_blocks
SELECT block_id FROM prediction_block WHERE block_id = ANY($1::bytea[]);

-- name: archived_blocks
SELECT block_id FROM prediction_block WHERE block_id = ANY($1::bytea[])
UNION ALL
SELECT block_id FROM outcome_block WHERE block_id = ANY($1::bytea[]);

-- name: set_aside_blocks
SELECT block_id FROM set_aside_block WHERE block_id = ANY($1::bytea[]);

-- name: set_aside
INSERT INTO set_aside_block (block_id)
SELECT DISTINCT unnest($1::bytea[]) ON CONFLICT DO NOTHING;

-- name: add_file
INSERT INTO archive_file (model_id, layout, file_name, row_count, byte_count)
VALUES ($1, $2, $3, $4, $5) RETURNING file_id;

-- name: add_part
-- A file that consists of one part, as they all do at first.
WITH file AS (
    INSERT INTO archive_file (model_id, layout, file_name, row_count, byte_count)
    VALUES ($1, $2, $3, $4, $5) RETURNING file_id
)
INSERT INTO archive_part (part_id, file_id, first_row) SELECT $6, file_id, 0 FROM file;

-- name: add_blocks
INSERT INTO prediction_block (
    block_number, block_id, model_id, version, arm, task, row_count, min_event_us, max_event_us,
    part_id, part_row, event_times, scores, decisions, client_keys, contexts, origin_block_id
)
SELECT * FROM unnest(
    $1::bigint[], $2::bytea[], $3::int[], $4::int[], $5::smallint[], $6::smallint[], $7::int[],
    $8::bigint[], $9::bigint[], $10::bigint[], $11::int[], $12::bytea[], $13::bytea[],
    $14::bytea[], $15::bytea[], $16::bytea[], $17::bytea[]
);

-- name: add_outcome_block
INSERT INTO outcome_block (block_id)
SELECT DISTINCT unnest($1::bytea[]) ON CONFLICT DO NOTHING RETURNING block_id;

-- name: rows_of_clients
-- Each key is looked up in the index, whatever the planner believes of the table: LATERAL with
-- OFFSET 0 is planned as it is written. So are the next ones.
SELECT g.place - 1 AS place, c.block_number, c.row_index
FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS g (key_high, key_low, place)
CROSS JOIN LATERAL (
    SELECT * FROM client_row AS c
    WHERE c.key_high = g.key_high AND c.key_low = g.key_low AND c.model_id = $1 OFFSET 0
) AS c;

-- name: numbers_of_blocks
SELECT block_id, block_number, row_count FROM prediction_block
WHERE model_id = $1 AND block_id = ANY($2::bytea[]);

-- name: shadows_of_blocks
SELECT g.origin_block_id, b.block_number, b.row_count
FROM unnest($2::bytea[]) AS g (origin_block_id)
CROSS JOIN LATERAL (
    SELECT * FROM prediction_block AS b
    WHERE b.origin_block_id = g.origin_block_id AND b.model_id = $1 OFFSET 0
) AS b;

-- name: truths_of_origins
-- Truths that were told of rows of these blocks by their ids, for blocks that repeat those rows.
SELECT g.place - 1 AS place, t.row_index, t.truth, t.known_at_us, t.event_high, t.event_low,
    t.event_row, t.source_id
FROM unnest($2::bytea[], $3::int[]) WITH ORDINALITY AS g (origin_block_id, row_count, place)
CROSS JOIN LATERAL (
    SELECT * FROM prediction_block AS b
    WHERE b.block_id = g.origin_block_id AND b.model_id = $1 OFFSET 0
) AS b
CROSS JOIN LATERAL (
    SELECT * FROM truth AS t
    WHERE t.block_number = b.block_number AND t.row_index < g.row_count AND NOT t.by_client OFFSET 0
) AS t;

-- name: truths_of_siblings
-- Truths that came by a client's id before these predictions under the same id. Every prediction
-- under it has all of them: one is asked.
SELECT g.place - 1 AS place, t.truth, t.known_at_us, t.event_high, t.event_low, t.event_row,
    t.source_id
FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS g (key_high, key_low, place)
CROSS JOIN LATERAL (
    SELECT * FROM client_row AS c
    WHERE c.key_high = g.key_high AND c.key_low = g.key_low AND c.model_id = $1 LIMIT 1
) AS c
CROSS JOIN LATERAL (
    SELECT * FROM truth AS t
    WHERE t.block_number = c.block_number AND t.row_index = c.row_index AND t.by_client OFFSET 0
) AS t;

-- name: parked_of_clients
SELECT g.place - 1 AS place, p.parked_id, p.truth, p.known_at_us, p.event_high, p.event_low,
    p.event_row, p.source_id
FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS g (high, low, place)
CROSS JOIN LATERAL (
    SELECT * FROM parked AS p
    WHERE p.high = g.high AND p.low = g.low AND p.row_index = -1 AND p.model_id = $1 OFFSET 0
) AS p;

-- name: parked_of_blocks
SELECT g.place - 1 AS place, p.row_index, p.parked_id, p.truth, p.known_at_us, p.event_high,
    p.event_low, p.event_row, p.source_id
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
    AS g (high, low, row_count, place)
CROSS JOIN LATERAL (
    SELECT * FROM parked AS p
    WHERE p.high = g.high AND p.low = g.low AND p.model_id = $1
        AND p.row_index >= 0 AND p.row_index < g.row_count OFFSET 0
) AS p;

-- name: unpark
DELETE FROM parked WHERE parked_id = ANY($1::bigint[]);

-- name: expire
WITH gone AS (
    DELETE FROM parked WHERE parked_id IN (
        SELECT parked_id FROM parked WHERE known_at_us < $1 ORDER BY known_at_us, parked_id LIMIT $2
    ) RETURNING *
)
SELECT m.model_name, gone.* FROM gone JOIN model AS m USING (model_id) ORDER BY parked_id;

-- name: truths_of_rows
SELECT t.block_number, t.row_index, t.truth, t.known_at_us, t.event_high, t.event_low,
    t.event_row, t.source_id, t.by_client, t.revision
FROM unnest($1::bigint[], $2::int[]) AS g (block_number, row_index)
CROSS JOIN LATERAL (
    SELECT * FROM truth AS t
    WHERE t.block_number = g.block_number AND t.row_index = g.row_index OFFSET 0
) AS t;

-- name: stored_blocks
SELECT block_number, block_id, version, arm, task, part_id, part_row, event_times, scores,
    decisions, client_keys, contexts
FROM prediction_block WHERE block_number = ANY($1::bigint[]);

-- name: count
UPDATE model SET
    predictions = predictions + $2, blocks = blocks + $3, history_rows = history_rows + $4,
    outcomes_received = outcomes_received + $5, predictions_joined = predictions_joined + $6,
    outcomes_parked = outcomes_parked + $7, outcomes_dead_lettered = outcomes_dead_lettered + $8,
    outcomes_repeated = outcomes_repeated + $9, corrections = corrections + $10,
    duplicate_blocks = duplicate_blocks + $11,
    -- Modulo 2^64, in a signed number: ((sum + 2^63) mod 2^64) - 2^63, with a sum above -2^64.
    joined_checksum = (
        (joined_checksum::numeric + $12::bigint + 27670116110564327424) % 18446744073709551616
        - 9223372036854775808
    )::bigint
WHERE model_id = $1;

-- name: read_watermark
SELECT epoch, marks, forwarded_us FROM watermark;

-- name: read_forwarded
SELECT forwarded_us FROM watermark;

-- name: write_watermark
INSERT INTO watermark (epoch, marks, forwarded_us) VALUES ($1, $2, $3)
ON CONFLICT (is_only) DO UPDATE SET epoch = excluded.epoch, marks = excluded.marks,
    forwarded_us = excluded.forwarded_us;

-- name: has_history
SELECT row_count FROM history WHERE model_id = $1 AND history_id = $2;

-- name: add_history
INSERT INTO history (model_id, history_id, row_count) VALUES ($1, $2, $3);

-- name: least_of_newest
-- The known-at of the $3-th newest truth, so that all known with it are taken.
SELECT known_at_us FROM truth
WHERE model_id = $1 AND known_at_us <= $2 AND arm = ANY($4::smallint[])
    AND event_time_us >= $5 AND event_time_us < $6
ORDER BY known_at_us DESC OFFSET $3 LIMIT 1;

-- name: places_of_parts
SELECT p.part_id, p.first_row, f.file_name
FROM archive_part AS p JOIN archive_file AS f USING (file_id) WHERE p.part_id = ANY($1::bigint[]);

-- name: history_blocks
SELECT part_id, part_row, row_count FROM prediction_block WHERE model_id = $1 AND arm = 4;

-- name: place_of_part
SELECT f.file_name, p.first_row FROM archive_part AS p JOIN archive_file AS f USING (file_id)
WHERE p.part_id = $1;

-- name: all_files
SELECT file_name FROM archive_file;

-- name: files_to_merge
SELECT file_id, model_id, layout, file_name, row_count FROM archive_file
WHERE row_count < $1 ORDER BY model_id, layout, file_id;

-- name: move_parts
UPDATE archive_part SET file_id = $2, first_row = first_row + $3 WHERE file_id = $1;

-- name: drop_file
DELETE FROM archive_file WHERE file_id = $1;

-- name: look_up_block
SELECT b.*, m.model_name FROM prediction_block AS b JOIN model AS m USING (model_id)
WHERE b.block_id = $1;

-- name: look_up_client
SELECT c.block_number, c.row_index FROM client_row AS c JOIN model AS m USING (model_id)
WHERE m.model_name = $1 AND c.key_high = $2 AND c.key_low = $3
ORDER BY c.block_number, c.row_index LIMIT 1000;

-- name: truths_of_prediction
SELECT t.truth, t.known_at_us, t.event_high, t.event_low, t.event_row, t.revision, s.source_name
FROM truth AS t JOIN source AS s USING (source_id)
WHERE t.block_number = $1 AND t.row_index = $2;

-- name: look_up_numbers
SELECT b.*, m.model_name FROM prediction_block AS b JOIN model AS m USING (model_id)
WHERE b.block_number = ANY($1::bigint[]);

-- name: past_blocks
SELECT block_number, block_id, version, arm, task, part_id, part_row, row_count, event_times,
    scores, decisions
FROM prediction_block WHERE block_number = ANY($1::bigint[]);
