-- +goose Up

CREATE TABLE tallyman.streams (
    revision_id  bigint NOT NULL,
    incarnation  uuid NOT NULL,
    source       text NOT NULL,
    state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed', 'retired')),
    floor        bigint NOT NULL DEFAULT 0 CHECK (floor >= 0),
    announced    bigint NOT NULL DEFAULT 0 CHECK (announced >= floor),
    announced_at timestamptz NOT NULL DEFAULT '-infinity',
    seen_at      timestamptz NOT NULL DEFAULT now(),
    refused      bigint NOT NULL DEFAULT 0,
    refused_why  text,
    refused_at   timestamptz,
    PRIMARY KEY (revision_id, incarnation)
);
CREATE INDEX streams_open ON tallyman.streams (revision_id) WHERE state = 'open';
CREATE INDEX streams_behind ON tallyman.streams (revision_id) WHERE floor < announced;
COMMENT ON TABLE tallyman.streams IS
    'The batches of one dataset that one opening of a source numbered, as the source announced them. A closed stream gets no further number.';
COMMENT ON COLUMN tallyman.streams.floor IS
    'Everything up to here is accounted for: loaded, discarded, satisfied or quarantined. Moved up by loaders every few seconds.';
COMMENT ON COLUMN tallyman.streams.announced IS
    'The highest number that the source has announced; announced_at is when, by its clock.';
COMMENT ON COLUMN tallyman.streams.seen_at IS 'When an announcement was last taken, by the warehouse''s clock.';
COMMENT ON COLUMN tallyman.streams.refused IS
    'Announcements in the stream''s name that were not taken; the last one why and when: other_source, went_back, too_many_missing.';

CREATE TABLE tallyman.announcements (
    revision_id bigint NOT NULL,
    incarnation uuid NOT NULL,
    sequence    bigint NOT NULL CHECK (sequence >= 0),
    at          timestamptz NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision_id, incarnation, sequence)
);
COMMENT ON TABLE tallyman.announcements IS
    'A short history of what sources announced: at their clock''s at, the last number was sequence. Thinned once it is covered.';
COMMENT ON COLUMN tallyman.announcements.at IS 'The latest time at which sequence was the last number.';
COMMENT ON COLUMN tallyman.announcements.since IS 'When the warehouse first heard of this number: what is missing is so since then.';

CREATE TABLE tallyman.satisfied (
    revision_id bigint NOT NULL,
    incarnation uuid NOT NULL,
    first       bigint NOT NULL CHECK (first > 0),
    last        bigint NOT NULL,
    reason      text NOT NULL CHECK (reason IN ('duplicate', 'accepted', 'forgotten')),
    why         text,
    by_whom     text,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision_id, incarnation, first, reason),
    CHECK (last >= first)
);
CREATE INDEX satisfied_last ON tallyman.satisfied (revision_id, incarnation, last);
COMMENT ON TABLE tallyman.satisfied IS
    'Numbers of streams that need no ledger row of their own, first and last included: duplicate (the ledger has the batch under another stream or number) or accepted as lost by somebody.';

CREATE INDEX quarantine_stream ON tallyman.quarantine (revision_id, incarnation, sequence) WHERE incarnation IS NOT NULL;

-- The reasons left out are those for which the row's identity is not to be
-- believed, or is of another dataset's stream. The CTE is asked for nothing but
-- what lies between the two numbers, so its cost follows the gap.
CREATE FUNCTION tallyman.holes(revision bigint, stream uuid, above bigint, upto bigint)
RETURNS TABLE (first bigint, last bigint) LANGUAGE sql STABLE AS $$
    WITH accounted AS (
        SELECT l.sequence AS first, l.sequence AS last
        FROM tallyman.loaded_elements l
        WHERE l.revision_id = revision AND l.incarnation = stream AND l.sequence > above AND l.sequence <= upto
        UNION ALL
        SELECT s.first, s.last
        FROM tallyman.satisfied s
        WHERE s.revision_id = revision AND s.incarnation = stream AND s.last > above AND s.first <= upto
        UNION ALL
        SELECT q.sequence, q.sequence
        FROM tallyman.quarantine q
        WHERE q.revision_id = revision AND q.incarnation = stream AND q.sequence > above AND q.sequence <= upto
          AND q.reason NOT IN ('no_id', 'bad_id', 'bad_envelope', 'bad_digest', 'bad_rows', 'wrong_dataset')
        UNION ALL
        SELECT upto + 1, upto + 1
    ), walked AS (
        SELECT a.first, GREATEST(above, max(a.last) OVER (ORDER BY a.first, a.last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS reached
        FROM accounted a
    )
    SELECT w.reached + 1, w.first - 1 FROM walked w WHERE w.first > w.reached + 1
$$;
COMMENT ON FUNCTION tallyman.holes IS
    'The ranges of a stream''s numbers above one and up to another that are neither loaded nor discarded nor satisfied nor quarantined.';

-- It looks a little ahead at first, and further as long as nothing is missing:
-- where upkeep was, the hole is right above the floor.
-- +goose StatementBegin
CREATE FUNCTION tallyman.reached(revision bigint, stream uuid, above bigint, upto bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := above;
    high bigint;
    step bigint := 1;
    hole bigint;
BEGIN
    WHILE low < upto LOOP
        high := low + LEAST(upto - low, step);
        SELECT min(h.first) INTO hole FROM tallyman.holes(revision, stream, low, high) h;
        IF hole IS NOT NULL THEN
            RETURN hole - 1;
        END IF;
        low := high;
        step := LEAST(step * 16, 1000000);
    END LOOP;
    RETURN upto;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION tallyman.reached IS 'The last number of a stream, above one and up to another, below which there is no hole.';

CREATE FUNCTION tallyman.held(revision bigint, stream uuid) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT min(q.sequence)
    FROM tallyman.quarantine q
    WHERE q.revision_id = revision AND q.incarnation = stream AND q.state = 'open'
      AND q.reason NOT IN ('no_id', 'bad_id', 'bad_envelope', 'bad_digest', 'bad_rows', 'wrong_dataset')
$$;
COMMENT ON FUNCTION tallyman.held IS 'The least number of a stream that is in open quarantine; NULL: none.';

CREATE FUNCTION tallyman.missing(grace interval)
RETURNS TABLE (revision_id bigint, incarnation uuid, source text, first bigint, last bigint, since timestamptz) LANGUAGE sql STABLE AS $$
    SELECT s.revision_id, s.incarnation, s.source, h.first, h.last,
           (SELECT a.since FROM tallyman.announcements a
            WHERE (a.revision_id, a.incarnation) = (s.revision_id, s.incarnation) AND a.sequence >= h.first
            ORDER BY a.sequence LIMIT 1)
    FROM tallyman.streams s
    CROSS JOIN LATERAL (SELECT max(a.sequence) AS upto FROM tallyman.announcements a
                        WHERE (a.revision_id, a.incarnation) = (s.revision_id, s.incarnation)
                          AND a.sequence > s.floor AND a.since <= now() - grace) told
    CROSS JOIN LATERAL tallyman.holes(s.revision_id, s.incarnation, s.floor, told.upto) h
    WHERE s.floor < s.announced AND s.state <> 'retired'
$$;
COMMENT ON FUNCTION tallyman.missing IS
    'Ranges of batches that sources announced, longer ago than the grace period, and that are nowhere: not loaded, discarded, satisfied or quarantined.';

CREATE VIEW tallyman.completeness AS
SELECT s.revision_id, s.incarnation, s.source, s.state, s.announced, s.announced_at, s.seen_at, s.refused, s.refused_why, c.covered,
       CASE WHEN s.state = 'retired' OR s.state = 'closed' AND c.covered >= s.announced THEN 'infinity'::timestamptz
            ELSE coalesce((SELECT max(a.at) FROM tallyman.announcements a
                           WHERE (a.revision_id, a.incarnation) = (s.revision_id, s.incarnation) AND a.sequence <= c.covered),
                          '-infinity'::timestamptz)
       END AS complete_through
FROM tallyman.streams s
CROSS JOIN LATERAL (
    SELECT LEAST(tallyman.held(s.revision_id, s.incarnation) - 1,
                 tallyman.reached(s.revision_id, s.incarnation, s.floor, s.announced)) AS covered
) c;
COMMENT ON VIEW tallyman.completeness IS
    'Each stream with the last number below which nothing is missing or in open quarantine (covered), and the time by its source''s clock through which all that was announced is loaded; infinity: it is closed and all is. The least of a dataset''s is complete through for the dataset.';

-- +goose StatementBegin
CREATE FUNCTION tallyman.announce(revision bigint, incarnations uuid[], sources text[], sequences bigint[], times timestamptz[], finals boolean[])
RETURNS TABLE (number bigint, refusal text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a record;
    s tallyman.streams;
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
            IF (SELECT count(*) FROM (SELECT FROM tallyman.streams t WHERE t.revision_id = revision AND t.state = 'open' LIMIT max_open) o) >= max_open THEN
                refusal := 'too_many_streams';
                RETURN NEXT;
                CONTINUE;
            END IF;
            INSERT INTO tallyman.streams (revision_id, incarnation, source) VALUES (revision, a.incarnation, a.source) ON CONFLICT DO NOTHING;
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
COMMENT ON FUNCTION tallyman.announce IS
    'Takes announcements, stream by stream in the order of their times, and returns those that are refused. What is open at most: 10,000 streams of a dataset; what an announcement may leave missing at most: 1,000,000 batches of its stream.';

-- +goose StatementBegin
CREATE FUNCTION tallyman.advance_floors(revision bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moved bigint;
    at_once CONSTANT bigint := 1000000;
BEGIN
    WITH behind AS (
        SELECT s.incarnation, s.floor, LEAST(s.announced, s.floor + at_once) AS upto
        FROM tallyman.streams s
        WHERE s.revision_id = revision AND s.floor < s.announced
        ORDER BY s.incarnation
        FOR NO KEY UPDATE SKIP LOCKED
    ), reached AS (
        SELECT b.incarnation, tallyman.reached(revision, b.incarnation, b.floor, b.upto) AS floor
        FROM behind b
    )
    UPDATE tallyman.streams s SET floor = r.floor
    FROM reached r
    WHERE (s.revision_id, s.incarnation) = (revision, r.incarnation) AND s.floor < r.floor;
    GET DIAGNOSTICS moved = ROW_COUNT;

    -- Of what is covered only the newest tells anything.
    DELETE FROM tallyman.announcements a
    USING tallyman.streams s, LATERAL (
        SELECT max(n.sequence) AS newest FROM tallyman.announcements n
        WHERE (n.revision_id, n.incarnation) = (s.revision_id, s.incarnation)
          AND n.sequence <= LEAST(s.floor, tallyman.held(s.revision_id, s.incarnation) - 1)
    ) c
    WHERE s.revision_id = revision AND (a.revision_id, a.incarnation) = (s.revision_id, s.incarnation) AND a.sequence < c.newest;

    -- Of what is not, after an hour, the last of each minute is enough.
    DELETE FROM tallyman.announcements a
    WHERE a.revision_id = revision AND a.since < now() - interval '1 hour'
      AND EXISTS (SELECT FROM tallyman.announcements n
                  WHERE (n.revision_id, n.incarnation) = (a.revision_id, a.incarnation) AND n.sequence > a.sequence
                    AND date_trunc('minute', n.at) = date_trunc('minute', a.at));
    RETURN moved;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION tallyman.advance_floors IS
    'Moves the floors of a revision''s streams up to below their first holes and thins the history of announcements. Safe to run at any time, by any number at once.';
