-- The life of the broker that a topic's marks are from; NULL: not known.
ALTER TABLE watermark ADD COLUMN epoch text;
