REVOKE ALL ON ALL TABLES IN SCHEMA tallyman FROM tallyman_loader, tallyman_reader;
REVOKE ALL ON ALL ROUTINES IN SCHEMA tallyman FROM tallyman_loader, tallyman_reader;
GRANT USAGE ON SCHEMA tallyman TO tallyman_loader, tallyman_reader;
GRANT SELECT ON tallyman.target, tallyman.datasets, tallyman.revisions, tallyman.loaded_elements,
    tallyman.positions, tallyman.quarantine, tallyman.gaps, tallyman.streams, tallyman.announcements, tallyman.satisfied,
    tallyman.completeness, tallyman.ledger_window,
    tallyman.expectations TO tallyman_loader, tallyman_reader;
GRANT SELECT ON tallyman.v4_ids TO tallyman_loader, tallyman_reader;
GRANT INSERT ON tallyman.v4_ids TO tallyman_loader;
GRANT INSERT ON tallyman.loaded_elements, tallyman.positions, tallyman.quarantine, tallyman.gaps TO tallyman_loader;
GRANT UPDATE (next_offset, era, log_start, anchor_offset, anchor_timestamp, anchor_sha256, updated_at)
    ON tallyman.positions TO tallyman_loader;
GRANT UPDATE (state, closed_at, closed_by, closed_why, unique_id, batch_time, source, incarnation, sequence, row_count, content, reason, detail)
    ON tallyman.quarantine TO tallyman_loader;
GRANT EXECUTE ON FUNCTION tallyman.return_claims, tallyman.extend_ledger TO tallyman_loader;
GRANT INSERT (revision_id, incarnation, source) ON tallyman.streams TO tallyman_loader;
GRANT UPDATE (state, floor, announced, announced_at, seen_at, at_most, looked_at, refused, refused_why, refused_at, retired_by, retired_why, retired_at) ON tallyman.streams TO tallyman_loader;
GRANT INSERT, UPDATE (at), DELETE ON tallyman.announcements TO tallyman_loader;
GRANT INSERT, UPDATE (last) ON tallyman.satisfied TO tallyman_loader;
GRANT SELECT, INSERT (cluster, revision_id, incarnation, due_at), UPDATE (due_at, looked_at, sent_at, sent) ON tallyman.receipts TO tallyman_loader;
GRANT SELECT ON tallyman.jobs, tallyman.job_events, tallyman.job_status, tallyman.job_members TO tallyman_loader, tallyman_reader;
GRANT INSERT (idempotency_key, kind, dataset, revision_id), UPDATE (idempotency_key), DELETE ON tallyman.jobs TO tallyman_loader;
GRANT INSERT (job_id, epoch, type, worker, detail) ON tallyman.job_events TO tallyman_loader;
GRANT INSERT, UPDATE (status, epoch, worker, attempts, retry_at, detail, updated_at) ON tallyman.job_status TO tallyman_loader;
GRANT INSERT, UPDATE (lease_until), DELETE ON tallyman.job_members TO tallyman_loader;
