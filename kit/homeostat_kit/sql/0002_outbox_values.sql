-- Packed columns hardly get smaller: do not try on every insert.
ALTER TABLE outbox ALTER COLUMN value SET STORAGE EXTERNAL;
