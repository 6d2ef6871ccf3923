-- name: due_versions
SELECT DISTINCT model_name, version FROM rebuild_due ORDER BY model_name, version;

-- name: due_keys
SELECT segment, name FROM rebuild_due WHERE model_name = $1 AND version = $2;

-- name: drop_due
DELETE FROM rebuild_due AS d USING unnest($3::text[], $4::text[]) AS g (segment, name)
WHERE d.model_name = $1 AND d.version = $2 AND d.segment = g.segment AND d.name = g.name;

-- name: accepted_alerts
SELECT count(*) FROM alert
WHERE model_name = $1 AND version = $2 AND body::json ->> 'resolution' = 'accepted';
