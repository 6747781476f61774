-- +goose Up

-- Jobs get the keys by which requests that come again find them. Those that are
-- there get a key of their own, which the first deployment about the same thing
-- replaces with the one that its kind makes. Each statement may run again.
ALTER TABLE tallyman.jobs ADD COLUMN IF NOT EXISTS idempotency_key text;
UPDATE tallyman.jobs SET idempotency_key = 'legacy:' || job_id WHERE idempotency_key IS NULL;
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = 'tallyman.jobs'::regclass AND conname = 'jobs_idempotency_key_check') THEN
        ALTER TABLE tallyman.jobs ALTER COLUMN idempotency_key SET NOT NULL,
            ADD CONSTRAINT jobs_idempotency_key_key UNIQUE (idempotency_key),
            ADD CONSTRAINT jobs_idempotency_key_check CHECK (idempotency_key ~ '^([0-9a-f]{64}|legacy:[1-9][0-9]*)$');
    END IF;
END
$$;
-- +goose StatementEnd
COMMENT ON COLUMN tallyman.jobs.idempotency_key IS
    'Made by the kind from what the job is about, never from its options: a request that comes again is the same job.';

-- The options of a run belong to the event that scheduled it. A job that was
-- scheduled before they were written there gets them from its descriptor, and one
-- without any history gets the shortest that leads to where it is.
UPDATE tallyman.job_events e SET detail = e.detail || jsonb_build_object('options', j.descriptor)
FROM tallyman.jobs j
WHERE j.job_id = e.job_id AND e.type = 'scheduled' AND NOT e.detail ? 'options';

INSERT INTO tallyman.job_events (job_id, epoch, type, worker, detail, at)
SELECT j.job_id, s.epoch, e.type, CASE e.n WHEN 1 THEN '' ELSE s.worker END, e.detail, CASE e.n WHEN 1 THEN j.created_at ELSE s.updated_at END
FROM tallyman.jobs j
JOIN tallyman.job_status s USING (job_id)
CROSS JOIN LATERAL (VALUES (1, 'scheduled', jsonb_build_object('options', j.descriptor)), (2, s.status, s.detail)) AS e (n, type, detail)
WHERE NOT EXISTS (SELECT FROM tallyman.job_events o WHERE (o.job_id, o.epoch) = (j.job_id, s.epoch))
  AND (e.n = 1 OR s.status <> 'scheduled')
ORDER BY j.job_id, e.n;

UPDATE tallyman.job_status s SET detail = e.detail, updated_at = e.at
FROM tallyman.job_events e
WHERE e.event_id = (SELECT max(l.event_id) FROM tallyman.job_events l WHERE l.job_id = s.job_id) AND (s.detail, s.updated_at) <> (e.detail, e.at);

COMMENT ON COLUMN tallyman.jobs.descriptor IS
    'Not used any more: the options of a run are in its scheduled event. A later release drops it.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION tallyman.refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tallyman.% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE ON tallyman.job_events FOR EACH ROW EXECUTE FUNCTION tallyman.refuse_update();

-- A job keeps what it is. But for its key, once: from that of a job that was there
-- before keys to the one that its kind makes.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION tallyman.refuse_job_update() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    adopted tallyman.jobs := OLD;
BEGIN
    adopted.idempotency_key := NEW.idempotency_key;
    IF OLD.idempotency_key LIKE 'legacy:%' AND NEW.idempotency_key NOT LIKE 'legacy:%' AND adopted IS NOT DISTINCT FROM NEW THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'tallyman.jobs is append-only' USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE ON tallyman.jobs FOR EACH ROW EXECUTE FUNCTION tallyman.refuse_job_update();
