package postgres

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/sink"
)

var _ sink.Retirer = (*Warehouse)(nil)

const (
	// Those that hold nothing back are told apart, so that a source that is done is
	// no unknown one.
	selectRetirable = `
SELECT s.incarnation, s.state, s.announced, s.seen_at, s.seen_at > now() - $4::interval,
       s.state <> 'retired' AND c.complete_through < 'infinity',
       (SELECT coalesce(sum(h.last - h.first + 1), 0)::bigint FROM tallyman.holes(s.revision_id, s.incarnation, s.floor, s.announced) h)
FROM (SELECT * FROM tallyman.streams
      WHERE revision_id = $1 AND source = $2 AND ($3::uuid IS NULL OR incarnation = $3)
      ORDER BY incarnation FOR NO KEY UPDATE) s
JOIN tallyman.completeness c ON (c.revision_id, c.incarnation) = (s.revision_id, s.incarnation)
ORDER BY s.incarnation`

	retireStreams = `
UPDATE tallyman.streams SET state = 'retired', retired_by = $3, retired_why = $4, retired_at = now()
WHERE revision_id = $1 AND incarnation = ANY ($2::uuid[])`

	selectSources = `SELECT DISTINCT source FROM tallyman.streams WHERE revision_id = $1 ORDER BY 1 LIMIT 20`
)

// RetireSource implements sink.Retirer.
func (w *Warehouse) RetireSource(ctx context.Context, r sink.Retirement) (all []sink.RetiredStream, err error) {
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		all, err = retireSource(ctx, tx, r)
		return err
	})
	if unknown := (*sink.UnknownSourceError)(nil); errors.As(err, &unknown) {
		return nil, unknown
	}
	return all, w.class("retire streams of a source", err)
}

func retireSource(ctx context.Context, tx pgx.Tx, r sink.Retirement) ([]sink.RetiredStream, error) {
	named := r.Incarnation != uuid.Nil
	rows, err := tx.Query(ctx, selectRetirable, r.Revision, r.Source, pgtype.UUID{Bytes: r.Incarnation, Valid: named}, sink.Silence)
	if err != nil {
		return nil, err
	}
	type stream struct {
		sink.RetiredStream
		holds bool
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s stream, err error) {
		var (
			incarnation pgtype.UUID
			announced   int64
		)
		err = row.Scan(&incarnation, &s.State, &announced, &s.Heard, &s.Alive, &s.holds, &s.Missing)
		s.Incarnation, s.Announced, s.Heard = incarnation.Bytes, uint64(announced), s.Heard.UTC()
		s.Alive = s.Alive && s.State == sink.StreamOpen && !named
		return s, err
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		unknown := &sink.UnknownSourceError{Source: r.Source}
		unknown.Known, err = names(ctx, tx, selectSources, r.Revision)
		if err == nil {
			err = unknown
		}
		return nil, err
	}
	found = slices.DeleteFunc(found, func(s stream) bool { return !s.holds })
	var (
		all     []sink.RetiredStream
		retired []pgtype.UUID
	)
	for _, s := range found {
		all = append(all, s.RetiredStream)
		if !s.Alive {
			retired = append(retired, pgtype.UUID{Bytes: s.Incarnation, Valid: true})
		}
	}
	_, err = tx.Exec(ctx, retireStreams, r.Revision, retired, optional(r.By), optional(r.Why))
	return all, err
}
