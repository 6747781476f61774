-- +goose Up

COMMENT ON COLUMN tallyman.streams.seen_at IS
    'When an announcement was last taken, or the one that ended the stream was heard once more, by the warehouse''s clock.';

-- A source says again, in the same words, how a stream ended, until it has seen a
-- receipt of it: that is heard, so that it is told once more.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION tallyman.announce(revision bigint, incarnations uuid[], sources text[], sequences bigint[], times timestamptz[], finals boolean[])
RETURNS TABLE (number bigint, refusal text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a record;
    s tallyman.streams;
    known boolean;
    opened bigint; -- streams, once it matters
    behind bigint; -- streams that are closed and not wholly accounted for, once it matters
    lacks bigint;  -- not more than that is missing up to the number announced
    highest bigint;
    max_open CONSTANT bigint := 10000;
    max_behind CONSTANT bigint := 10000;
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
        known := FOUND;
        IF NOT known OR s.state = 'closed' AND s.source = a.source AND a.at > s.announced_at AND a.sequence >= s.announced THEN
            -- It is one more that is open, or one more that is closed and lacks something.
            IF opened IS NULL AND NOT (known AND a.final) THEN
                SELECT count(*) INTO opened FROM tallyman.streams t WHERE t.revision_id = revision AND t.state = 'open';
            END IF;
            IF behind IS NULL AND a.final THEN
                SELECT count(*) INTO behind FROM tallyman.streams t
                WHERE t.revision_id = revision AND t.floor < t.announced AND t.state = 'closed';
            END IF;
            IF opened >= max_open AND NOT (known AND a.final) THEN
                refusal := 'too_many_streams';
            ELSIF a.final AND behind >= max_behind AND coalesce(s.floor >= s.announced, true)
                  AND tallyman.reached(revision, a.incarnation, coalesce(s.floor, 0), a.sequence) < a.sequence THEN
                refusal := 'too_many_streams';
            END IF;
        END IF;
        IF NOT known THEN
            IF refusal IS NOT NULL THEN
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
            IF a.final AND s.state <> 'open' AND a.at = s.announced_at AND a.sequence = s.announced THEN
                UPDATE tallyman.streams t SET seen_at = now() WHERE (t.revision_id, t.incarnation) = (revision, a.incarnation);
            END IF;
            CONTINUE; -- it was read before, or a later one was
        ELSIF a.sequence < s.announced THEN
            refusal := 'went_back';
        END IF;
        lacks := LEAST(coalesce(s.at_most, s.announced - s.floor) + (a.sequence - s.announced), a.sequence - s.floor);
        IF refusal IS NULL AND lacks > max_holes AND a.sequence > s.announced THEN
            SELECT GREATEST(s.floor,
                (SELECT l.sequence FROM tallyman.loaded_elements l
                 WHERE l.revision_id = revision AND l.incarnation = a.incarnation AND l.sequence <= a.sequence ORDER BY l.sequence DESC LIMIT 1),
                (SELECT LEAST(x.last, a.sequence) FROM tallyman.satisfied x
                 WHERE (x.revision_id, x.incarnation) = (revision, a.incarnation) ORDER BY x.last DESC LIMIT 1),
                (SELECT q.sequence FROM tallyman.quarantine q
                 WHERE q.revision_id = revision AND q.incarnation = a.incarnation AND q.sequence <= a.sequence ORDER BY q.sequence DESC LIMIT 1))
            INTO highest;
            IF a.sequence - highest > max_holes OR a.sequence = 9223372036854775807 OR s.looked_at > now() - interval '1 minute' THEN
                refusal := 'too_many_missing';
            ELSE
                SELECT coalesce(sum(h.last - h.first + 1), 0) INTO lacks FROM tallyman.holes(revision, a.incarnation, s.floor, a.sequence) h;
                IF lacks > max_holes THEN
                    refusal := 'too_many_missing';
                    UPDATE tallyman.streams t SET looked_at = now() WHERE (t.revision_id, t.incarnation) = (revision, a.incarnation);
                END IF;
            END IF;
        END IF;
        IF refusal IS NULL THEN
            UPDATE tallyman.streams t SET announced = a.sequence, announced_at = a.at, seen_at = now(), at_most = lacks,
                state = CASE WHEN t.state = 'retired' THEN t.state WHEN a.final THEN 'closed' ELSE 'open' END
            WHERE (t.revision_id, t.incarnation) = (revision, a.incarnation);
            -- What is behind may lack nothing: that is looked at only when there is no more room.
            IF a.final AND a.sequence > s.floor AND (s.state = 'open' OR s.floor >= s.announced) THEN
                behind := behind + 1;
            END IF;
            IF a.final AND s.state = 'open' THEN
                opened := opened - 1;
            ELSIF NOT a.final AND s.state = 'closed' THEN
                opened := opened + 1;
            END IF;
            INSERT INTO tallyman.announcements AS n (revision_id, incarnation, sequence, at)
            VALUES (revision, a.incarnation, a.sequence, a.at)
            ON CONFLICT (revision_id, incarnation, sequence) DO UPDATE SET at = EXCLUDED.at;
        ELSE
            -- Even a journal that was restored from an older copy has ended its stream.
            UPDATE tallyman.streams t SET refused = t.refused + 1, refused_why = refusal, refused_at = now(),
                seen_at = CASE WHEN refusal = 'went_back' AND a.final THEN now() ELSE t.seen_at END,
                state = CASE WHEN refusal = 'went_back' AND a.final AND t.state = 'open' THEN 'closed' ELSE t.state END
            WHERE (t.revision_id, t.incarnation) = (revision, a.incarnation);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd
