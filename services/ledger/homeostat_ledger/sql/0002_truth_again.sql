-- A prediction has one truth of revision 1; whatever else was told of it is found by this.
CREATE INDEX truth_again ON truth (model_id, known_at_us) WHERE revision <> 1;
