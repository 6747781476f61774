-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION tallyman.return_claims(revision bigint, times timestamptz[], ids uuid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM tallyman.loaded_elements l
    USING unnest(times, ids) AS k (batch_time, unique_id)
    WHERE (l.revision_id, l.batch_time, l.unique_id) = (revision, k.batch_time, k.unique_id)
      AND l.xmin = pg_current_xact_id()::xid;
    DELETE FROM tallyman.v4_ids v
    WHERE v.revision_id = revision AND v.unique_id = ANY (ids) AND v.xmin = pg_current_xact_id()::xid
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION tallyman.return_claims FROM PUBLIC;
COMMENT ON FUNCTION tallyman.return_claims IS
    'Deletes rows of the ledger and of v4_ids that the running transaction inserted itself, and no others: a loader may claim an id for a message that goes to quarantine, but not make the ledger forget a batch.';
