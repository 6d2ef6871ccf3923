-- Models change in two things only: autonomy and champion.
CREATE TABLE model (
    name text PRIMARY KEY,
    autonomy smallint NOT NULL CHECK (autonomy BETWEEN 1 AND 4),
    champion_version bigint,
    -- Counts changes of autonomy and champion.
    revision bigint NOT NULL DEFAULT 1 CHECK (revision >= 1),
    highest_fencing_token numeric(20) NOT NULL DEFAULT 0,
    created_at_us bigint NOT NULL
);

-- What a version is: never changed, never removed.
CREATE TABLE version (
    model_name text NOT NULL REFERENCES model (name),
    version bigint NOT NULL CHECK (version >= 1),
    model_sha256 text NOT NULL,
    model_bytes bigint NOT NULL,
    reference_sha256 text,
    reference_bytes bigint,
    signature jsonb NOT NULL,
    lineage jsonb NOT NULL,
    evidence jsonb,
    run_id text CHECK (run_id <> ''),
    author text NOT NULL,
    admission text NOT NULL,
    registered_at_us bigint NOT NULL,
    PRIMARY KEY (model_name, version)
);
-- One effect per run.
CREATE UNIQUE INDEX version_run ON version (model_name, run_id) WHERE run_id IS NOT NULL;
CREATE INDEX version_artifact ON version (model_name, model_sha256);
CREATE INDEX version_model_sha256 ON version (model_sha256);
CREATE INDEX version_reference_sha256 ON version (reference_sha256);

-- Where a version stands; only this moves. Stages are numbered as in the contract, 2 = champion.
CREATE TABLE version_stage (
    model_name text NOT NULL,
    version bigint NOT NULL,
    stage smallint NOT NULL CHECK (stage BETWEEN 1 AND 5),
    reasons text[] NOT NULL,
    PRIMARY KEY (model_name, version),
    FOREIGN KEY (model_name, version) REFERENCES version (model_name, version)
);
CREATE UNIQUE INDEX version_stage_one_champion ON version_stage (model_name) WHERE stage = 2;

-- From when on which version was champion, in event time.
CREATE TABLE reign (
    model_name text NOT NULL,
    revision bigint NOT NULL,
    version bigint NOT NULL,
    since_us bigint NOT NULL,
    change smallint NOT NULL,
    PRIMARY KEY (model_name, revision),
    FOREIGN KEY (model_name, version) REFERENCES version (model_name, version)
);

-- One chain for the whole registry: each hash covers the one before.
CREATE TABLE audit (
    sequence bigint PRIMARY KEY CHECK (sequence >= 1),
    model_name text NOT NULL,
    action text NOT NULL,
    actor text NOT NULL,
    detail text NOT NULL,
    occurred_at_us bigint NOT NULL,
    previous_hash bytea NOT NULL UNIQUE CHECK (length(previous_hash) = 32),
    hash bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE INDEX audit_model ON audit (model_name, sequence);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER version_append_only BEFORE UPDATE OR DELETE ON version
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER version_no_truncate BEFORE TRUNCATE ON version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER reign_append_only BEFORE UPDATE OR DELETE ON reign
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER reign_no_truncate BEFORE TRUNCATE ON reign
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The trigger alone guards version against UPDATE: checking a foreign key locks its row, which needs
-- that right.
REVOKE DELETE, TRUNCATE ON version FROM CURRENT_USER, PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON reign, audit FROM CURRENT_USER, PUBLIC;
