-- +goose Up

CREATE TABLE tallyman.receipts (
    cluster     text NOT NULL,
    revision_id bigint NOT NULL,
    incarnation uuid NOT NULL,
    due_at      timestamptz NOT NULL,
    looked_at   timestamptz NOT NULL DEFAULT now(),
    sent_at     timestamptz NOT NULL DEFAULT '-infinity',
    sent        bytea,
    PRIMARY KEY (cluster, revision_id, incarnation)
);
CREATE INDEX receipts_due ON tallyman.receipts (cluster, revision_id, due_at);
CREATE INDEX streams_seen ON tallyman.streams (revision_id, seen_at);
COMMENT ON TABLE tallyman.receipts IS
    'What was last told to the source of each stream, on each Kafka cluster that the revision is loaded from.';
COMMENT ON COLUMN tallyman.receipts.due_at IS
    'When the stream is looked at again; whoever looks moves it ahead first. infinity: it is closed, all of it is accounted for, and its source was told so.';
COMMENT ON COLUMN tallyman.receipts.looked_at IS 'When the source was last told how its stream stands, or that was seen to be what it was told.';
COMMENT ON COLUMN tallyman.receipts.sent IS 'SHA-256 of what was last told, its time left out.';

-- OFFSET 0 keeps reached from being called once more for every number that holes looks at.
CREATE FUNCTION tallyman.receipt(revision bigint, stream uuid, grace interval, ranges integer)
RETURNS TABLE (source text, closed boolean, seen_at timestamptz, through bigint, considered bigint, announced bigint, firsts bigint[], lasts bigint[])
LANGUAGE sql STABLE AS $$
    SELECT s.source, s.state <> 'open', s.seen_at, c.through,
           CASE WHEN cardinality(n.firsts) > ranges THEN n.firsts[ranges + 1] - 1 ELSE GREATEST(told.upto, c.through) END,
           s.announced, n.firsts[:ranges], n.lasts[:ranges]
    FROM tallyman.streams s
    CROSS JOIN LATERAL (SELECT tallyman.reached(s.revision_id, s.incarnation, s.floor, s.announced) AS through OFFSET 0) c
    CROSS JOIN LATERAL (SELECT max(a.sequence) AS upto FROM tallyman.announcements a
                        WHERE (a.revision_id, a.incarnation) = (s.revision_id, s.incarnation)
                          AND a.sequence > s.floor AND a.since <= now() - grace) told
    CROSS JOIN LATERAL (SELECT coalesce(array_agg(h.first ORDER BY h.first), '{}') AS firsts, coalesce(array_agg(h.last ORDER BY h.first), '{}') AS lasts
                        FROM (SELECT * FROM tallyman.holes(s.revision_id, s.incarnation, c.through, GREATEST(told.upto, c.through)) h
                              ORDER BY h.first LIMIT ranges + 1) h) n
    WHERE (s.revision_id, s.incarnation) = (revision, stream)
$$;
COMMENT ON FUNCTION tallyman.receipt IS
    'What a stream''s source is told: everything through one number is accounted for; up to considered the ranges listed are missing, for longer than the grace period, and nothing else is. A source of a retired stream that turns up again hears of its holes, too.';
