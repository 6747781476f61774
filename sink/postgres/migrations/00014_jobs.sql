-- +goose Up

-- Jobs: work that was promised to be done. What ran before there were any, a load
-- of each active revision, goes on as one, so that nobody has to ask for it again.
CREATE TABLE tallyman.jobs (
    job_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]{0,62}$'),
    dataset     text NOT NULL CHECK (dataset <> ''),
    revision_id bigint NOT NULL CHECK (revision_id > 0),
    descriptor  jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE tallyman.jobs IS
    'What jobs are: rows are never updated. What became of each is in job_events, and the sum of that in job_status.';

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

WITH made AS (
    INSERT INTO tallyman.jobs (kind, dataset, revision_id)
    SELECT 'load', dataset, revision_id FROM tallyman.revisions WHERE state = 'active' ORDER BY revision_id
    RETURNING job_id
)
INSERT INTO tallyman.job_status (job_id, status, epoch, worker, attempts, detail, updated_at)
SELECT job_id, 'running', 1, '', 0, '{}', clock_timestamp() FROM made;
