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
