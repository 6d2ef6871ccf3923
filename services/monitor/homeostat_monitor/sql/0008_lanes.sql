-- A person's thresholds on windows and those on truths have an alert each.
ALTER TABLE alert ADD COLUMN of_truths boolean NOT NULL DEFAULT false;
UPDATE alert SET of_truths = true WHERE is_open AND rule = 'policy'
    AND coalesce(body::json -> 'shares' -> 0 ->> 'statistic', 'null_rate') NOT IN
        ('mean_score', 'null_rate', 'js_distance', 'arrival_rate', 'estimated_loss');
DROP INDEX alert_one_open;
CREATE UNIQUE INDEX alert_one_open ON alert (model_name, version, rule, segment, of_truths)
    WHERE is_open;
