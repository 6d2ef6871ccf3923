-- Asked at each change of champion; stage 3 awaits approval.
CREATE INDEX version_stage_waiting ON version_stage (model_name, version) WHERE stage = 3;
