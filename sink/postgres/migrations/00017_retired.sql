-- +goose Up

-- A job that is scheduled on a revision waits for who is about to drop it, and is
-- refused once it is dropped, whoever writes the event.
-- +goose StatementBegin
CREATE FUNCTION tallyman.refuse_retired() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    revision bigint;
    standing text;
BEGIN
    SELECT r.revision_id, r.state INTO revision, standing
    FROM tallyman.revisions r
    WHERE r.revision_id = (SELECT j.revision_id FROM tallyman.jobs j WHERE j.job_id = NEW.job_id)
    FOR KEY SHARE;
    IF standing = 'retired' THEN
        RAISE EXCEPTION 'revision % is retired: its table was dropped', revision USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION tallyman.refuse_retired FROM PUBLIC;
CREATE TRIGGER not_retired BEFORE INSERT ON tallyman.job_events FOR EACH ROW
    WHEN (NEW.type IN ('scheduled', 'retry')) EXECUTE FUNCTION tallyman.refuse_retired();
