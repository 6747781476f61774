package postgres

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/sink"
)

// Account is what became of the batches that a stream's source announced. Each
// of them counts once, as the first of these that it is.
type Account struct {
	Source      string
	Incarnation uuid.UUID
	State       string // open, closed or retired
	Announced   int64
	Loaded      int64
	Discarded   int64
	Satisfied   int64
	Forgotten   int64 // of these, below the floor and nowhere, where the ledger has a horizon
	Quarantined int64
	Missing     int64 // above the floor
	Overdue     int64 // missing longer than the grace period
	Twice       int64 // batches of the ledger whose number another batch has, too
}

// Unaccounted is by how many batches the sum is wrong: what was accounted for
// once, so that the floor passed it, and is nowhere now. Where the ledger has a
// horizon it may have gone with an old partition, and counts as Forgotten.
func (a *Account) Unaccounted() int64 {
	return a.Announced - a.Loaded - a.Discarded - a.Satisfied - a.Quarantined - a.Missing
}

func (a *Account) add(b *Account) {
	a.Loaded += b.Loaded
	a.Discarded += b.Discarded
	a.Satisfied += b.Satisfied
	a.Forgotten += b.Forgotten
	a.Quarantined += b.Quarantined
	a.Missing += b.Missing
	a.Overdue += b.Overdue
	a.Twice += b.Twice
}

// worse orders accounts, those that need a look first.
func worse(a, b Account) int {
	return cmp.Or(cmp.Compare(b.Unaccounted(), a.Unaccounted()), cmp.Compare(b.Twice, a.Twice), cmp.Compare(b.Overdue, a.Overdue),
		cmp.Compare(b.Missing, a.Missing), cmp.Compare(b.Quarantined, a.Quarantined), cmp.Compare(b.Announced, a.Announced),
		cmp.Compare(a.Incarnation.String(), b.Incarnation.String()))
}

// Numbers are a range of a stream's numbers, both ends included.
type Numbers struct {
	Incarnation uuid.UUID
	First, Last int64
	Batches     []uuid.UUID // that have the number, if it is one and has several
}

// Accounts are the accounts of a revision's streams.
type Accounts struct {
	Streams int64
	Total   Account   // of all of them; it names none
	Worst   []Account // at most as many as were asked for
	// FirstLost and FirstTwice are the first of what is unaccounted for, and of the
	// numbers that several batches have: at most examplesKept of each.
	FirstLost, FirstTwice []Numbers
}

// AccountOptions say which streams are accounted for.
type AccountOptions struct {
	// Since leaves out streams that were last announced before; zero: none.
	Since time.Time
	// Grace is how long after its announcement a batch may be missing.
	Grace time.Duration
	// Limit bounds the accounts that are kept. Defaults to all.
	Limit int
	// PieceNumbers is how many numbers one statement counts. Defaults to 1,000,000.
	PieceNumbers int64
	// Progress hears how many of the announced batches were counted. Defaults to nothing.
	Progress func(done, total int64)
}

const (
	examplesKept = 10
	pageStreams  = 1000 // streams that one statement reads

	sumAnnounced = `
SELECT coalesce(sum(announced), 0)::bigint FROM tallyman.streams WHERE revision_id = $1 AND seen_at >= $2`

	listStreams = `
SELECT s.incarnation, s.source, s.state, s.floor, s.announced,
       coalesce((SELECT max(a.sequence) FROM tallyman.announcements a
                 WHERE (a.revision_id, a.incarnation) = (s.revision_id, s.incarnation) AND a.since <= now() - $4::interval AND s.state <> 'retired'), 0)
FROM tallyman.streams s
WHERE s.revision_id = $1 AND s.seen_at >= $2 AND s.incarnation > $3
ORDER BY s.incarnation
LIMIT $5`

	// The ledger, what is satisfied, quarantine and holes are counted each on their
	// own, so that the sum says something.
	countNumbers = `
SELECT p.piece, l.loaded, l.discarded, l.twice, s.satisfied, q.quarantined, h.missing, h.overdue
FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) WITH ORDINALITY AS p (incarnation, above, upto, floor, told, piece)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE n.fresh AND n.outcome = 'loaded') AS loaded, count(*) FILTER (WHERE n.fresh AND n.outcome = 'discarded') AS discarded,
           count(*) FILTER (WHERE NOT n.fresh) AS twice
    FROM (SELECT l.outcome, l.sequence IS DISTINCT FROM lag(l.sequence) OVER (ORDER BY l.sequence) AS fresh
          FROM tallyman.loaded_elements l
          WHERE l.revision_id = $1 AND l.incarnation = p.incarnation AND l.sequence > p.above AND l.sequence <= p.upto) n) l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(upper(r.numbers) - lower(r.numbers) - (
               SELECT count(DISTINCT l.sequence) FROM tallyman.loaded_elements l
               WHERE l.revision_id = $1 AND l.incarnation = p.incarnation AND l.sequence >= lower(r.numbers) AND l.sequence < upper(r.numbers))), 0)::bigint AS satisfied
    FROM unnest((SELECT range_agg(int8range(GREATEST(s.first, p.above + 1), LEAST(s.last, p.upto), '[]'))
                 FROM tallyman.satisfied s
                 WHERE s.revision_id = $1 AND s.incarnation = p.incarnation AND s.last > p.above AND s.first <= p.upto)) AS r (numbers)) s
CROSS JOIN LATERAL (
    SELECT count(DISTINCT q.sequence) AS quarantined
    FROM tallyman.quarantine q
    WHERE q.revision_id = $1 AND q.incarnation = p.incarnation AND q.sequence > p.above AND q.sequence <= p.upto
      AND q.reason NOT IN ('no_id', 'bad_id', 'bad_envelope', 'bad_digest', 'bad_rows', 'wrong_dataset')
      AND NOT EXISTS (SELECT FROM tallyman.loaded_elements l WHERE (l.revision_id, l.incarnation, l.sequence) = ($1, q.incarnation, q.sequence))
      AND NOT EXISTS (SELECT FROM tallyman.satisfied s
                      WHERE (s.revision_id, s.incarnation) = ($1, q.incarnation) AND s.first <= q.sequence AND s.last >= q.sequence)) q
CROSS JOIN LATERAL (
    SELECT coalesce(sum(h.last - h.first + 1), 0)::bigint AS missing,
           coalesce(sum(GREATEST(0, LEAST(h.last, p.told) - h.first + 1)), 0)::bigint AS overdue
    FROM tallyman.holes($1, p.incarnation, GREATEST(p.above, p.floor), p.upto) h) h
ORDER BY p.piece`

	listLost = `SELECT h.first, h.last, NULL::uuid[] FROM tallyman.holes($1, $2, $3, $4) h ORDER BY h.first LIMIT $5`

	listTwice = `
SELECT l.sequence, l.sequence, (array_agg(l.unique_id ORDER BY l.loaded_at, l.unique_id))[:10]
FROM tallyman.loaded_elements l
WHERE l.revision_id = $1 AND l.incarnation = $2 AND l.sequence > $3 AND l.sequence <= $4
GROUP BY l.sequence
HAVING count(*) > 1
ORDER BY l.sequence
LIMIT $5`
)

// account is a stream that is being counted.
type account struct {
	Account
	floor, told int64
}

// piece is a part of a stream's numbers: above one and up to another.
type piece struct {
	*account
	above, upto int64
}

// accountant counts a revision's streams.
type accountant struct {
	conn        *pgx.Conn
	revision    int64
	o           AccountOptions
	found       Accounts
	pieces      []piece // that are counted by the next statement
	size        int64   // numbers in them
	done, total int64
}

// Accounts accounts for what sources announced, however much that is: some
// numbers at a time, each statement as of one moment. Numbers only go from
// missing to accounted for, so the sums hold while loaders load.
func (w *Warehouse) Accounts(ctx context.Context, r sink.Revision, o AccountOptions) (Accounts, error) {
	if o.PieceNumbers == 0 {
		o.PieceNumbers = 1_000_000
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	conn, err := pgx.ConnectConfig(ctx, w.patient())
	if err != nil {
		return Accounts{}, w.class("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	a := &accountant{conn: conn, revision: r.ID, o: o}
	err = a.all(ctx)
	return a.found, w.class("account for streams", err)
}

func (a *accountant) all(ctx context.Context) error {
	since := boundary(a.o.Since, pgtype.NegativeInfinity)
	if err := a.conn.QueryRow(ctx, sumAnnounced, a.revision, since).Scan(&a.total); err != nil {
		return err
	}
	after := pgtype.UUID{Valid: true}
	for more := true; more; {
		rows, err := a.conn.Query(ctx, listStreams, a.revision, since, after, a.o.Grace, pageStreams)
		if err != nil {
			return err
		}
		streams, err := pgx.CollectRows(rows, scanAccount)
		if err != nil {
			return err
		}
		more = len(streams) == pageStreams
		for _, s := range streams {
			if err := a.cut(ctx, s); err != nil {
				return err
			}
			after.Bytes = s.Incarnation
		}
		if err := a.count(ctx); err != nil {
			return err
		}
		for _, s := range streams {
			a.keep(&s.Account)
		}
	}
	a.trim()
	return nil
}

func scanAccount(row pgx.CollectableRow) (*account, error) {
	var (
		s  account
		id pgtype.UUID
	)
	err := row.Scan(&id, &s.Source, &s.State, &s.floor, &s.Announced, &s.told)
	s.Incarnation = id.Bytes
	return &s, err
}

// cut cuts a stream's numbers into pieces.
func (a *accountant) cut(ctx context.Context, s *account) error {
	for above := int64(0); above < s.Announced; {
		upto := above + min(s.Announced-above, a.o.PieceNumbers-a.size)
		a.pieces = append(a.pieces, piece{s, above, upto})
		a.size += upto - above
		above = upto
		if a.size >= a.o.PieceNumbers {
			if err := a.count(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// count counts the pieces.
func (a *accountant) count(ctx context.Context) error {
	var (
		streams                   []pgtype.UUID
		above, upto, floors, told []int64
	)
	for _, p := range a.pieces {
		streams = append(streams, pgtype.UUID{Bytes: p.Incarnation, Valid: true})
		above, upto = append(above, p.above), append(upto, p.upto)
		floors, told = append(floors, p.floor), append(told, p.told)
	}
	pieces := a.pieces
	a.pieces, a.size = nil, 0
	rows, err := a.conn.Query(ctx, countNumbers, a.revision, streams, above, upto, floors, told)
	if err != nil {
		return err
	}
	counted := make([]Account, len(pieces))
	var (
		i int
		n Account
	)
	_, err = pgx.ForEachRow(rows, []any{&i, &n.Loaded, &n.Discarded, &n.Twice, &n.Satisfied, &n.Quarantined, &n.Missing, &n.Overdue}, func() error {
		counted[i-1] = n
		return nil
	})
	if err != nil {
		return err
	}
	for i, p := range pieces {
		n := &counted[i]
		n.Announced = p.upto - p.above
		if err := a.forgive(ctx, n); err != nil {
			return err
		}
		p.add(n)
		if err := a.examples(ctx, p, n); err != nil {
			return err
		}
		a.done += n.Announced
	}
	a.o.Progress(a.done, a.total)
	return nil
}

// forgive counts what is nowhere as forgotten, if the ledger has a horizon: below
// a floor nothing else is kept of a number than its batch's row in the ledger.
// A horizon is set before anything is forgotten, so it is looked for afterwards.
func (a *accountant) forgive(ctx context.Context, n *Account) error {
	lost := n.Unaccounted()
	if lost <= 0 {
		return nil
	}
	e, err := readExtent(ctx, a.conn)
	if err != nil {
		return err
	}
	if window, err := e.window(); err != nil || window.Horizon.IsZero() {
		return err
	}
	n.Forgotten = lost
	n.Satisfied += lost
	return nil
}

// examples names what is wrong in a piece, if anything is.
func (a *accountant) examples(ctx context.Context, p piece, n *Account) error {
	if n.Unaccounted() != 0 {
		if err := a.name(ctx, &a.found.FirstLost, listLost, piece{p.account, p.above, min(p.upto, p.floor)}); err != nil {
			return err
		}
	}
	if n.Twice > 0 {
		return a.name(ctx, &a.found.FirstTwice, listTwice, p)
	}
	return nil
}

func (a *accountant) name(ctx context.Context, to *[]Numbers, query string, p piece) error {
	if len(*to) >= examplesKept {
		return nil
	}
	rows, err := a.conn.Query(ctx, query, a.revision, pgtype.UUID{Bytes: p.Incarnation, Valid: true}, p.above, p.upto, examplesKept-len(*to))
	if err != nil {
		return err
	}
	var (
		n   Numbers
		ids []pgtype.UUID
	)
	_, err = pgx.ForEachRow(rows, []any{&n.First, &n.Last, &ids}, func() error {
		n.Incarnation, n.Batches = p.Incarnation, nil
		for _, id := range ids {
			n.Batches = append(n.Batches, id.Bytes)
		}
		*to = append(*to, n)
		return nil
	})
	return err
}

// keep adds a stream to the total, and to the worst if it is one of them.
func (a *accountant) keep(s *Account) {
	a.found.Streams++
	a.found.Total.Announced += s.Announced
	a.found.Total.add(s)
	a.found.Worst = append(a.found.Worst, *s)
	if a.o.Limit > 0 && len(a.found.Worst) > a.o.Limit+pageStreams {
		a.trim()
	}
}

func (a *accountant) trim() {
	slices.SortFunc(a.found.Worst, worse)
	if a.o.Limit > 0 && len(a.found.Worst) > a.o.Limit {
		a.found.Worst = slices.Clone(a.found.Worst[:a.o.Limit])
	}
}
