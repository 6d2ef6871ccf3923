-- name: lock_model
-- Until the end of the transaction; every change of one model waits its turn here.
SELECT pg_advisory_xact_lock(hashtextextended('homeostat.registry.model:' || $1, 0));

-- name: lock_audit
-- Taken last in every transaction: the chain has one end.
SELECT pg_advisory_xact_lock(hashtextextended('homeostat.registry.audit', 0));

-- name: create_model
INSERT INTO model (name, autonomy, created_at_us) VALUES ($1, $2, $3)
ON CONFLICT (name) DO NOTHING
RETURNING *;

-- name: get_model
SELECT * FROM model WHERE name = $1;

-- name: list_models
SELECT * FROM model ORDER BY name;

-- name: change_model
UPDATE model
SET autonomy = $2, champion_version = $3, revision = $4, serving = $5, settled_revision = $6
WHERE name = $1;

-- name: raise_fencing_token
UPDATE model SET highest_fencing_token = greatest(highest_fencing_token, $2) WHERE name = $1;

-- name: next_version
SELECT coalesce(max(version), 0) + 1 FROM version WHERE model_name = $1;

-- name: insert_version
INSERT INTO version (
    model_name, version, model_sha256, model_bytes, reference_sha256, reference_bytes,
    signature, lineage, evidence, run_id, author, admission, registered_at_us,
    equivalence
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: insert_stage
INSERT INTO version_stage (model_name, version, stage, reasons) VALUES ($1, $2, $3, $4);

-- name: move_stage
UPDATE version_stage SET stage = $3, reasons = $4 WHERE model_name = $1 AND version = $2;

-- name: get_version
SELECT version.*, stage, reasons
FROM version JOIN version_stage USING (model_name, version)
WHERE model_name = $1 AND version = $2;

-- name: list_versions
SELECT version.*, stage, reasons
FROM version JOIN version_stage USING (model_name, version)
WHERE model_name = $1 AND ($3::bigint = 0 OR version < $3) ORDER BY version DESC LIMIT $2;

-- name: challenger
SELECT max(version) FROM version_stage WHERE model_name = $1 AND stage = 3;

-- name: list_waiting
-- Stage 3 awaits approval.
SELECT version.*, stage, reasons
FROM version JOIN version_stage USING (model_name, version)
WHERE model_name = $1 AND stage = 3 ORDER BY version;

-- name: list_champions
SELECT version.*, stage, reasons
FROM version JOIN version_stage USING (model_name, version)
WHERE stage = 2 ORDER BY model_name;

-- name: list_named
SELECT version.*, stage, reasons
FROM unnest($1::text[], $2::bigint[]) AS named (model_name, version)
JOIN version USING (model_name, version)
JOIN version_stage USING (model_name, version)
ORDER BY model_name, version;

-- name: version_of_run
SELECT version.*, stage, reasons
FROM version JOIN version_stage USING (model_name, version)
WHERE model_name = $1 AND run_id = $2;

-- name: version_of_artifact
SELECT version.*, stage, reasons
FROM version JOIN version_stage USING (model_name, version)
WHERE model_name = $1 AND model_sha256 = $2 ORDER BY version LIMIT 1;

-- name: insert_reign
INSERT INTO reign (model_name, revision, version, since_us, change) VALUES ($1, $2, $3, $4, $5);

-- name: list_reigns
SELECT revision, version, since_us, change FROM reign WHERE model_name = $1 ORDER BY revision;

-- name: last_audit
SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1;

-- name: insert_audit
INSERT INTO audit (
    sequence, model_name, action, actor, detail, occurred_at_us, previous_hash, hash
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: list_audit
SELECT * FROM audit
WHERE sequence > $2 AND ($1 = '' OR model_name = $1)
ORDER BY sequence LIMIT $3;
