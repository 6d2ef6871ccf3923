-- Shadow rows: the block that was answered on the same inputs, row by row. Truth for a row of that
-- block is truth for the same row of this one.
ALTER TABLE prediction_block ADD COLUMN origin_block_id bytea
    CHECK (octet_length(origin_block_id) = 16);
CREATE INDEX prediction_block_of_origin ON prediction_block (origin_block_id)
    WHERE origin_block_id IS NOT NULL;

-- Blocks that could not be read and went to the dead letters: sending them again is no use.
CREATE TABLE set_aside_block (
    block_id bytea PRIMARY KEY CHECK (octet_length(block_id) = 16)
);
