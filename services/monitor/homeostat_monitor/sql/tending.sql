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
