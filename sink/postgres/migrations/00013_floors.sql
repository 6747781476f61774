-- +goose Up

-- A stream that was announced on while the statement ran is locked as it is now,
-- and first checked as it was: with a floor above what was announced then, that
-- failed for all streams.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION tallyman.advance_floors(revision bigint) RETURNS bigint LANGUAGE plpgsql AS $$
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
    UPDATE tallyman.streams s SET floor = LEAST(r.floor, s.announced)
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
