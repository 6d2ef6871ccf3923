-- name: read_offsets
SELECT topic, partition, next_offset FROM consumer_offset WHERE epoch = $1;

-- name: advance_offsets
-- Compare-and-set: counts the partitions that stood where the caller believed them to stand.
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[])
        AS g (topic, partition, expected, next_offset)
), moved AS (
    UPDATE consumer_offset AS c
    SET next_offset = given.next_offset, updated_at = now()
    FROM given
    WHERE c.epoch = $1 AND c.topic = given.topic AND c.partition = given.partition
        AND c.next_offset = given.expected
    RETURNING 1
), begun AS (
    INSERT INTO consumer_offset (epoch, topic, partition, next_offset)
    SELECT $1, topic, partition, next_offset FROM given WHERE expected = 0
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM moved) + (SELECT count(*) FROM begun);

-- name: lock_outbox
-- Held to the end of the transaction: ids then rise in the order of commits.
SELECT pg_advisory_xact_lock(hashtext('homeostat_outbox_order'));

-- name: put_outbox
INSERT INTO outbox (topic, partition, key, value, event_id, occurred_at_us, traceparent)
SELECT topic, partition, key, value, event_id, occurred_at_us, traceparent
FROM unnest($1::text[], $2::int[], $3::bytea[], $4::bytea[], $5::text[], $6::bigint[], $7::text[])
    WITH ORDINALITY
    AS g (topic, partition, key, value, event_id, occurred_at_us, traceparent, place)
ORDER BY place;

-- name: next_outbox
SELECT id, topic, partition, key, value, event_id, occurred_at_us, traceparent
FROM outbox WHERE sent_epoch IS NULL ORDER BY id LIMIT $1;

-- name: mark_outbox_sent
UPDATE outbox AS o SET sent_epoch = $1, sent_partition = g.partition, sent_offset = g.sent_offset
FROM unnest($2::bigint[], $3::int[], $4::bigint[]) AS g (id, partition, sent_offset)
WHERE o.id = g.id;

-- name: raise_outbox_positions
INSERT INTO outbox_position (epoch, topic, partition, next_offset)
SELECT $1, topic, partition, next_offset
FROM unnest($2::text[], $3::int[], $4::bigint[]) AS g (topic, partition, next_offset)
ON CONFLICT (epoch, topic, partition)
DO UPDATE SET next_offset = greatest(outbox_position.next_offset, excluded.next_offset);

-- name: forget_sent_elsewhere
-- What another life of the broker acknowledged is unsent in this one.
UPDATE outbox SET sent_epoch = NULL, sent_partition = NULL, sent_offset = NULL
WHERE sent_epoch IS NOT NULL AND sent_epoch <> $1;

-- name: count_unsent
SELECT count(*) FROM outbox WHERE sent_epoch IS NULL;

-- name: count_unsent_in_epoch
SELECT count(*) FROM outbox WHERE sent_epoch IS DISTINCT FROM $1;

-- name: read_outbox_positions
SELECT topic, partition, next_offset FROM outbox_position WHERE epoch = $1;

-- name: trim_outbox
-- Beyond so many rows or bytes of what was sent last; marks, which name their partition, apart.
DELETE FROM outbox
WHERE sent_epoch = $1 AND partition IS NULL AND id <= (
    SELECT max(id) FROM (
        SELECT id, row_number() OVER newest_first AS place,
            sum(octet_length(value)) OVER newest_first AS bytes
        FROM outbox WHERE sent_epoch = $1 AND partition IS NULL
        WINDOW newest_first AS (ORDER BY id DESC)
    ) AS sent
    WHERE place > $2::bigint OR bytes > $3::bigint
);

-- name: trim_marks
-- A mark says all that earlier ones of its partition said. The newest stays where it is: behind
-- what it covers, whenever that is sent again.
DELETE FROM outbox AS o
USING (
    SELECT topic, partition, key, max(id) AS id FROM outbox
    WHERE sent_epoch = $1 AND partition IS NOT NULL GROUP BY topic, partition, key
) AS newest
WHERE o.sent_epoch = $1 AND o.topic = newest.topic AND o.partition = newest.partition
    AND o.key = newest.key AND o.id < newest.id;

-- name: trim_positions
DELETE FROM outbox_position WHERE epoch <> $1;

-- name: try_lock_relay
SELECT pg_try_advisory_lock(hashtext('homeostat_outbox_relay'));

-- name: unlock_relay
SELECT pg_advisory_unlock(hashtext('homeostat_outbox_relay'));

-- name: take_lease
INSERT INTO lease AS l (name, holder, token, expires_at)
VALUES ($1, $2, 1, now() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, token = l.token + 1, expires_at = excluded.expires_at
WHERE l.expires_at <= now() OR l.holder = excluded.holder
RETURNING token;

-- name: renew_lease
UPDATE lease SET expires_at = now() + make_interval(secs => $3)
WHERE name = $1 AND token = $2 RETURNING token;

-- name: release_lease
UPDATE lease SET expires_at = now() WHERE name = $1 AND token = $2;

-- name: check_lease
SELECT token FROM lease WHERE name = $1 FOR SHARE;

-- name: take_leases
-- Who says its own token goes on with it; the same holder in another life gets a new one.
INSERT INTO lease AS l (name, holder, token, expires_at)
SELECT name, $3, 1, now() + make_interval(secs => $4)
FROM unnest($1::text[]) AS g (name)
WHERE NOT EXISTS (
    -- Not even waited for: who works under it has it locked.
    SELECT FROM lease AS o WHERE o.name = g.name AND o.expires_at > now() AND o.holder <> $3
)
ORDER BY name
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, expires_at = excluded.expires_at,
    token = CASE WHEN l.token = (
        SELECT token FROM unnest($1::text[], $2::bigint[]) AS g (name, token) WHERE name = l.name
    ) THEN l.token ELSE l.token + 1 END
WHERE l.expires_at <= now() OR l.holder = excluded.holder
RETURNING name, token;

-- name: release_leases
UPDATE lease AS l SET expires_at = now()
FROM unnest($1::text[], $2::bigint[]) AS g (name, token)
WHERE l.name = g.name AND l.token = g.token;
