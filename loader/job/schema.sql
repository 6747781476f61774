CREATE TABLE tallyman.jobs (
    job_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key ~ '^([0-9a-f]{64}|legacy:[1-9][0-9]*)$'),
    kind            text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]{0,62}$'),
    dataset         text NOT NULL CHECK (dataset <> ''),
    revision_id     bigint NOT NULL CHECK (revision_id > 0),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE tallyman.jobs IS
    'What jobs are: rows are never updated. What became of each is in job_events, and the sum of that in job_status.';
COMMENT ON COLUMN tallyman.jobs.idempotency_key IS
    'Made by the kind from what the job is about, never from its options: a request that comes again is the same job.';

CREATE TABLE tallyman.job_events (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id   bigint NOT NULL REFERENCES tallyman.jobs ON DELETE CASCADE,
    epoch    bigint NOT NULL CHECK (epoch > 0),
    type     text NOT NULL CHECK (type IN ('scheduled', 'running', 'completed', 'stop_requested', 'stopping', 'stopped', 'error', 'retry', 'fatal')),
    worker   text NOT NULL,
    detail   jsonb NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX job_events_job ON tallyman.job_events (job_id, event_id);
COMMENT ON TABLE tallyman.job_events IS
    'What happened to jobs, append-only. The options of a run are in the detail of its scheduled event.';

CREATE TABLE tallyman.job_status (
    job_id     bigint PRIMARY KEY REFERENCES tallyman.jobs ON DELETE CASCADE,
    status     text NOT NULL CHECK (status IN ('scheduled', 'running', 'completed', 'stop_requested', 'stopping', 'stopped', 'error', 'fatal')),
    epoch      bigint NOT NULL,
    worker     text NOT NULL,
    attempts   integer NOT NULL,
    retry_at   timestamptz,
    detail     jsonb NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX job_status_due ON tallyman.job_status (status, retry_at) WHERE status IN ('error', 'stop_requested', 'stopping');
COMMENT ON TABLE tallyman.job_status IS
    'What job_events add up to: written with each event, in its transaction.';

CREATE TABLE tallyman.job_members (
    job_id      bigint NOT NULL REFERENCES tallyman.jobs ON DELETE CASCADE,
    epoch       bigint NOT NULL,
    member      text NOT NULL CHECK (member <> ''),
    lease_until timestamptz NOT NULL,
    PRIMARY KEY (job_id, epoch, member)
);
COMMENT ON TABLE tallyman.job_members IS
    'Who works on a job, each with a lease of its own. All share the job''s epoch, which joining does not raise.';

CREATE FUNCTION tallyman.refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tallyman.% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE ON tallyman.jobs FOR EACH ROW EXECUTE FUNCTION tallyman.refuse_update();
CREATE TRIGGER append_only BEFORE UPDATE ON tallyman.job_events FOR EACH ROW EXECUTE FUNCTION tallyman.refuse_update();
