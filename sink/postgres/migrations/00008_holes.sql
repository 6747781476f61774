-- +goose Up

-- The ledger's index gives the numbers in their order, month by month, so
-- nothing is sorted and nothing is written to disk; what is left to subtract
-- from are the holes alone.
CREATE OR REPLACE FUNCTION tallyman.holes(revision bigint, stream uuid, above bigint, upto bigint)
RETURNS TABLE (first bigint, last bigint) LANGUAGE sql STABLE AS $$
    WITH numbered AS (
        SELECT l.sequence, lag(l.sequence, 1, above) OVER w AS before, lead(l.sequence) OVER w IS NULL AS newest
        FROM tallyman.loaded_elements l
        WHERE l.revision_id = revision AND l.incarnation = stream AND l.sequence > above AND l.sequence <= upto
        WINDOW w AS (ORDER BY l.sequence)
    ), apart AS (
        SELECT int8multirange(int8range(LEAST(n.before + 1, n.sequence), n.sequence),
                              CASE WHEN n.newest THEN int8range(n.sequence, upto, '(]') ELSE 'empty' END) AS numbers
        FROM numbered n
        WHERE n.sequence > n.before + 1 OR n.newest
    ), excused AS (
        SELECT int8range(GREATEST(s.first, above + 1), LEAST(s.last, upto), '[]') AS numbers
        FROM tallyman.satisfied s
        WHERE s.revision_id = revision AND s.incarnation = stream AND s.last > above AND s.first <= upto AND above < upto
        UNION ALL
        SELECT int8range(q.sequence, q.sequence, '[]')
        FROM tallyman.quarantine q
        WHERE q.revision_id = revision AND q.incarnation = stream AND q.sequence > above AND q.sequence <= upto
          AND q.reason NOT IN ('no_id', 'bad_id', 'bad_envelope', 'bad_digest', 'bad_rows', 'wrong_dataset')
    )
    SELECT lower(r.hole), upper(r.hole) - 1
    FROM unnest(coalesce((SELECT range_agg(a.numbers) FROM apart a), int8multirange(int8range(above, GREATEST(above, upto), '(]')))
              - coalesce((SELECT range_agg(e.numbers) FROM excused e), '{}')) AS r (hole)
$$;

-- OFFSET 0 keeps the planner from putting the call of tallyman.reached in every
-- place where its result is used, as it does with what is only written once: it
-- was made up to three times for each stream.
CREATE OR REPLACE VIEW tallyman.completeness AS
SELECT s.revision_id, s.incarnation, s.source, s.state, s.announced, s.announced_at, s.seen_at, s.refused, s.refused_why, c.covered,
       CASE WHEN s.state = 'retired' OR s.state = 'closed' AND c.covered >= s.announced THEN 'infinity'::timestamptz
            ELSE coalesce((SELECT max(a.at) FROM tallyman.announcements a
                           WHERE (a.revision_id, a.incarnation) = (s.revision_id, s.incarnation) AND a.sequence <= c.covered),
                          '-infinity'::timestamptz)
       END AS complete_through
FROM tallyman.streams s
CROSS JOIN LATERAL (
    SELECT LEAST(tallyman.held(s.revision_id, s.incarnation) - 1,
                 tallyman.reached(s.revision_id, s.incarnation, s.floor, s.announced)) AS covered OFFSET 0
) c;

-- What is open is counted once a call, and not for each new stream: a flood of
-- them ran into the time limit of its statement, and nothing went past it.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION tallyman.announce(revision bigint, incarnations uuid[], sources text[], sequences bigint[], times timestamptz[], finals boolean[])
RETURNS TABLE (number bigint, refusal text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a record;
    s tallyman.streams;
    opened bigint; -- streams, once one was not known
    max_open CONSTANT bigint := 10000;
    max_holes CONSTANT bigint := 1000000;
BEGIN
    FOR a IN
        SELECT k.* FROM unnest(incarnations, sources, sequences, times, finals) WITH ORDINALITY
            AS k (incarnation, source, sequence, at, final, number)
        ORDER BY k.incarnation, k.at, k.number
    LOOP
        number := a.number;
        refusal := NULL;
        SELECT t.* INTO s FROM tallyman.streams t WHERE (t.revision_id, t.incarnation) = (revision, a.incarnation) FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            IF opened IS NULL THEN
                SELECT count(*) INTO opened FROM tallyman.streams t WHERE t.revision_id = revision AND t.state = 'open';
            END IF;
            IF opened >= max_open THEN
                refusal := 'too_many_streams';
                RETURN NEXT;
                CONTINUE;
            END IF;
            INSERT INTO tallyman.streams (revision_id, incarnation, source) VALUES (revision, a.incarnation, a.source) ON CONFLICT DO NOTHING;
            opened := opened + 1;
            SELECT t.* INTO s FROM tallyman.streams t WHERE (t.revision_id, t.incarnation) = (revision, a.incarnation) FOR NO KEY UPDATE;
        END IF;
        IF s.source <> a.source THEN
            refusal := 'other_source';
        ELSIF a.at <= s.announced_at THEN
            CONTINUE; -- it was read before, or a later one was
        ELSIF a.sequence < s.announced THEN
            refusal := 'went_back';
        ELSIF a.sequence - s.floor > max_holes AND (a.sequence = 9223372036854775807
              OR (SELECT sum(h.last - h.first + 1) FROM tallyman.holes(revision, a.incarnation, s.floor, a.sequence) h) > max_holes) THEN
            refusal := 'too_many_missing';
        END IF;
        IF refusal IS NULL THEN
            UPDATE tallyman.streams t SET announced = a.sequence, announced_at = a.at, seen_at = now(),
                state = CASE WHEN t.state = 'retired' THEN t.state WHEN a.final THEN 'closed' ELSE 'open' END
            WHERE (t.revision_id, t.incarnation) = (revision, a.incarnation);
            IF a.final AND s.state = 'open' THEN
                opened := opened - 1;
            END IF;
            INSERT INTO tallyman.announcements AS n (revision_id, incarnation, sequence, at)
            VALUES (revision, a.incarnation, a.sequence, a.at)
            ON CONFLICT (revision_id, incarnation, sequence) DO UPDATE SET at = EXCLUDED.at;
        ELSE
            -- Even a journal that was restored from an older copy has ended its stream.
            UPDATE tallyman.streams t SET refused = t.refused + 1, refused_why = refusal, refused_at = now(),
                state = CASE WHEN refusal = 'went_back' AND a.final AND t.state = 'open' THEN 'closed' ELSE t.state END
            WHERE (t.revision_id, t.incarnation) = (revision, a.incarnation);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd
