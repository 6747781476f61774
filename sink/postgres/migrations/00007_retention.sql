-- +goose Up

CREATE TABLE tallyman.ledger_window (
    one_row   boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    retention interval,
    horizon   timestamptz NOT NULL DEFAULT '-infinity',
    leaving   text[] NOT NULL DEFAULT '{}'
);
INSERT INTO tallyman.ledger_window DEFAULT VALUES;
COMMENT ON TABLE tallyman.ledger_window IS
    'How long the ledger keeps batches, and from which batch time on it takes them: one row.';
COMMENT ON COLUMN tallyman.ledger_window.retention IS
    'Months that are wholly older are forgotten by tallyman init; NULL: nothing is.';
COMMENT ON COLUMN tallyman.ledger_window.horizon IS
    'Batches of earlier times are not taken any more. It is only ever raised, before anything is forgotten.';
COMMENT ON COLUMN tallyman.ledger_window.leaving IS
    'Partitions that are being detached and dropped: a tallyman init that was interrupted is finished by the next one.';
COMMENT ON TABLE tallyman.v4_ids IS
    'The batch time that each v4 id first came with. The id has no time in it, and the ledger''s key has one, so without this table the same id with another time would load again. Rows before the horizon are forgotten with the ledger''s partitions.';

CREATE FUNCTION tallyman.accounted(revision bigint, stream uuid, number bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM tallyman.satisfied s WHERE (s.revision_id, s.incarnation) = (revision, stream)
                   AND s.first <= number AND s.last >= number AND s.reason IN ('duplicate', 'forgotten'))
        OR EXISTS (SELECT FROM tallyman.streams s WHERE (s.revision_id, s.incarnation) = (revision, stream) AND number <= s.floor)
       AND NOT EXISTS (SELECT FROM tallyman.satisfied s WHERE (s.revision_id, s.incarnation) = (revision, stream)
                       AND s.first <= number AND s.last >= number AND s.reason = 'accepted')
       AND NOT EXISTS (SELECT FROM tallyman.quarantine q WHERE (q.revision_id, q.incarnation, q.sequence) = (revision, stream, number) AND q.state = 'open'
                       AND q.reason NOT IN ('no_id', 'bad_id', 'bad_envelope', 'bad_digest', 'bad_rows', 'wrong_dataset'))
$$;
COMMENT ON FUNCTION tallyman.accounted IS
    'Whether a number of a stream was loaded or discarded, as far as is known without the ledger''s row. The floor passes what somebody gave up for lost and what is in open quarantine too, so these are not.';

-- +goose StatementBegin
CREATE FUNCTION tallyman.fold(part regclass, before timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    folded bigint;
BEGIN
    -- A look into the index for each stream, and then only at what is above its floor.
    EXECUTE format($fold$
        WITH RECURSIVE streams AS (
            (SELECT l.revision_id, l.incarnation FROM %1$s l WHERE l.incarnation IS NOT NULL ORDER BY 1, 2 LIMIT 1)
            UNION ALL
            SELECT n.* FROM streams s CROSS JOIN LATERAL (
                SELECT l.revision_id, l.incarnation FROM %1$s l
                WHERE (l.revision_id, l.incarnation) > (s.revision_id, s.incarnation) AND l.incarnation IS NOT NULL
                ORDER BY 1, 2 LIMIT 1) n
        ), above AS (
            SELECT s.revision_id, s.incarnation, l.sequence,
                   l.sequence - dense_rank() OVER (PARTITION BY s.revision_id, s.incarnation ORDER BY l.sequence) AS island
            FROM streams s
            LEFT JOIN tallyman.streams t USING (revision_id, incarnation)
            JOIN %1$s l ON (l.revision_id, l.incarnation) = (s.revision_id, s.incarnation) AND l.sequence > coalesce(t.floor, 0) %2$s
        )
        INSERT INTO tallyman.satisfied AS s (revision_id, incarnation, first, last, reason)
        SELECT revision_id, incarnation, min(sequence), max(sequence), 'forgotten'
        FROM above
        GROUP BY revision_id, incarnation, island
        ORDER BY revision_id, incarnation, min(sequence)
        ON CONFLICT (revision_id, incarnation, first, reason) DO UPDATE SET last = EXCLUDED.last WHERE s.last < EXCLUDED.last
    $fold$, part, CASE WHEN before IS NULL THEN '' ELSE format('AND l.batch_time < %L', before) END);
    GET DIAGNOSTICS folded = ROW_COUNT;
    RETURN folded;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION tallyman.fold FROM PUBLIC;
COMMENT ON FUNCTION tallyman.fold IS
    'Keeps what a partition of the ledger, or what it has of times before one, accounts for above the floors of streams: as ranges in satisfied, with the reason forgotten. Safe to repeat.';

-- A transaction that saw no horizon yet may have loaded into the partition after
-- it was folded, and a copy may have come since: it is in quarantine for nothing.
-- +goose StatementBegin
CREATE FUNCTION tallyman.recall(part regclass) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    recalled bigint;
BEGIN
    EXECUTE format($recall$
        UPDATE tallyman.quarantine q
        SET state = CASE l.outcome WHEN 'loaded' THEN 'redriven' ELSE 'discarded' END, closed_at = now(), closed_why = 'the ledger had the batch'
        FROM %1$s l
        WHERE q.state = 'open' AND q.reason = 'expired'
          AND (l.revision_id, l.batch_time, l.unique_id) = (q.revision_id, q.batch_time, q.unique_id) AND l.digest = q.content
    $recall$, part);
    GET DIAGNOSTICS recalled = ROW_COUNT;
    RETURN recalled;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION tallyman.recall FROM PUBLIC;
COMMENT ON FUNCTION tallyman.recall IS 'Closes what is in quarantine as expired and was loaded after all, by a partition of the ledger that is about to be dropped.';

-- A partition is made beside the ledger and then attached, which waits for no
-- load; created as a partition it would wait for open ones.
-- +goose StatementBegin
CREATE FUNCTION tallyman.add_partitions(upto timestamptz) RETURNS SETOF text LANGUAGE plpgsql
SET TimeZone = 'UTC' SET DateStyle = 'ISO' SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    month timestamptz;
    part text;
BEGIN
    SELECT GREATEST(
        (SELECT max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz)
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'tallyman.loaded_elements'::regclass AND c.relname <> 'loaded_elements_derived'),
        (SELECT NULLIF(w.horizon, '-infinity') FROM tallyman.ledger_window w)) INTO month;
    WHILE month <= upto LOOP
        part := 'loaded_elements_' || to_char(month, 'YYYY_MM');
        EXECUTE format('CREATE TABLE tallyman.%I (LIKE tallyman.loaded_elements INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE tallyman.loaded_elements ATTACH PARTITION tallyman.%I FOR VALUES FROM (%L) TO (%L)',
                       part, month, month + interval '1 month');
        RETURN NEXT part;
        month := month + interval '1 month';
    END LOOP;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION tallyman.add_partitions FROM PUBLIC;
COMMENT ON FUNCTION tallyman.add_partitions IS
    'Makes the ledger''s partitions by month, from where the newest one ends to the one of a time, and returns their names.';

-- +goose StatementBegin
CREATE FUNCTION tallyman.extend_ledger() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
BEGIN
    IF pg_try_advisory_xact_lock(x'74616c6c796d616e'::bigint) THEN -- else tallyman init is at it
        RETURN QUERY SELECT tallyman.add_partitions(date_trunc('month', now(), 'UTC') + interval '24 months');
    END IF;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION tallyman.extend_ledger FROM PUBLIC;
COMMENT ON FUNCTION tallyman.extend_ledger IS
    'Makes the ledger''s partitions for the next 24 months, as its owner: for loaders, which own nothing.';

ALTER TABLE tallyman.streams ADD COLUMN retired_by text, ADD COLUMN retired_why text, ADD COLUMN retired_at timestamptz;
COMMENT ON COLUMN tallyman.streams.retired_by IS
    'Who said that the stream holds the dataset back no more; why and when is beside it. It is not taken back: what opens its source again begins another stream.';

CREATE TABLE tallyman.expected_sources (
    dataset    text NOT NULL,
    source     text NOT NULL,
    continuous boolean NOT NULL,
    PRIMARY KEY (dataset, source)
);
COMMENT ON TABLE tallyman.expected_sources IS
    'The sources that a dataset is expected to get batches from, by the manifest that was applied last. None: whichever there are.';

CREATE VIEW tallyman.expectations AS
SELECT r.revision_id, e.source, e.continuous, count(s.incarnation) AS streams,
       CASE WHEN count(s.incarnation) = 0 THEN '-infinity'::timestamptz
            WHEN e.continuous AND NOT bool_or(s.state = 'open') THEN max(s.announced_at)
            ELSE 'infinity'::timestamptz
       END AS complete_through
FROM tallyman.expected_sources e
JOIN tallyman.revisions r ON r.dataset = e.dataset
LEFT JOIN tallyman.streams s ON (s.revision_id, s.source) = (r.revision_id, e.source)
GROUP BY r.revision_id, e.source, e.continuous;
COMMENT ON VIEW tallyman.expectations IS
    'How each expected source holds its dataset back, beyond what its streams do: one that was never heard of wholly, a continuous one without an open stream at its last announcement.';
