-- Which blocks may hold rows of a span of event time.
CREATE INDEX prediction_block_of_time ON prediction_block (model_id, max_event_us);
