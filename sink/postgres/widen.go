package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

// AppliedManifest is a manifest that a dataset's table takes rows by.
type AppliedManifest struct {
	Hash      string
	Manifest  schema.Manifest
	AppliedAt time.Time
}

const (
	selectManifests = `
SELECT dataset, manifest_hash, manifest, created_at
FROM tallyman.datasets
WHERE dataset = $1 OR $1 = ''
ORDER BY created_at, manifest_hash`

	selectManifest = `SELECT manifest FROM tallyman.datasets WHERE (dataset, manifest_hash) = ($1, $2)`
)

// Manifest implements sink.Manifests.
func (w *Warehouse) Manifest(ctx context.Context, r sink.Revision, hash string) (*schema.Manifest, error) {
	var text []byte
	err := w.pool.QueryRow(ctx, selectManifest, r.Manifest.Dataset.String(), hash).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, w.class("read manifest", err)
	}
	m, err := schema.ParseCanonical(text)
	if err == nil && m.Hash() != hash {
		err = fmt.Errorf("it has the hash %s", m.Hash())
	}
	if err != nil {
		return nil, &sink.Error{Class: sink.Misconfigured, Reason: reasonUnexpected,
			Err: fmt.Errorf("manifest %s of %s: %w", hash, r.Manifest.Dataset, err)}
	}
	if !schema.Fit(schema.Compare(r.Manifest, m)) {
		return nil, nil
	}
	return &m, nil
}

// readManifests returns the manifests of a dataset, or of all if none is named, by dataset.
func readManifests(ctx context.Context, q queryer, dataset string) (map[string][]AppliedManifest, error) {
	rows, err := q.Query(ctx, selectManifests, dataset)
	if err != nil {
		return nil, err
	}
	all := map[string][]AppliedManifest{}
	var (
		name string
		text []byte
		a    AppliedManifest
	)
	_, err = pgx.ForEachRow(rows, []any{&name, &a.Hash, &text, &a.AppliedAt}, func() (err error) {
		if a.Manifest, err = schema.ParseCanonical(text); err != nil {
			return fmt.Errorf("manifest %s of %s: %w", a.Hash, name, err)
		}
		all[name] = append(all[name], a)
		return nil
	})
	return all, err
}

// servedBy returns those of a dataset's manifests whose rows go to the table of
// a revision, each with the columns of the one before it: every later one was
// refused unless it had them.
func servedBy(r sink.Revision, all []AppliedManifest) []AppliedManifest {
	served := slices.DeleteFunc(slices.Clone(all), func(a AppliedManifest) bool {
		return !schema.Fit(schema.Compare(r.Manifest, a.Manifest))
	})
	slices.SortStableFunc(served, func(a, b AppliedManifest) int {
		return cmp.Compare(len(a.Manifest.Columns), len(b.Manifest.Columns))
	})
	return served
}

// examineWider looks at a dataset that is there: it has the manifest already, or
// its table gets the columns that the manifest adds.
func examineWider(ctx context.Context, tx pgx.Tx, r sink.Revision, m schema.Manifest) (survey, error) {
	s := survey{applied: Applied{Revision: r, Hash: m.Hash()}}
	all, err := readManifests(ctx, tx, m.Dataset.String())
	if err != nil {
		return s, err
	}
	served := servedBy(r, all[m.Dataset.String()])
	if err := present(ctx, tx, r, served); err != nil {
		return s, err
	}
	if slices.ContainsFunc(served, func(a AppliedManifest) bool { return a.Hash == s.applied.Hash }) {
		return s, nil
	}
	newest := served[len(served)-1]
	s.applied.Changes = schema.Compare(newest.Manifest, m)
	if !schema.Fit(s.applied.Changes) {
		return s, refused(m, "the warehouse has this dataset by manifest %s, and rows by this one can't be in the same table: %s. "+
			"Nothing was changed. A manifest that only adds nullable columns can be applied; for everything else make a dataset of another name",
			newest.Hash, misfitting(s.applied.Changes))
	}
	s.applied.Widened = true
	var have shape
	if err := have.read(ctx, tx, r.Physical); err != nil {
		return s, err
	}
	if m.Existing {
		wanted := []*schema.Manifest{&m}
		for i := range served {
			wanted = append(wanted, &served[i].Manifest)
		}
		if err := have.check(r.Physical, wanted); err != nil {
			return s, refusedTable(m, err)
		}
		return s, nil
	}
	if err := s.widen(&have, served, m); err != nil {
		return s, err
	}
	return s, s.widenOthers(ctx, tx, served, m)
}

const selectOthers = `
SELECT physical_schema, physical_table FROM tallyman.revisions
WHERE dataset = $1 AND state IN ('building', 'standby')
ORDER BY revision_id`

// widenOthers adds the columns to the tables of the revisions that readers do not
// see, since rows by the manifest come to all that are loaded.
func (s *survey) widenOthers(ctx context.Context, tx pgx.Tx, served []AppliedManifest, m schema.Manifest) error {
	rows, err := tx.Query(ctx, selectOthers, m.Dataset.String())
	if err != nil {
		return err
	}
	others, err := pgx.CollectRows(rows, pgx.RowToStructByPos[schema.Table])
	if err != nil {
		return err
	}
	for _, table := range others {
		var have shape
		if err := have.read(ctx, tx, table); err != nil {
			return err
		}
		if err := s.addColumns(&have, table, schema.Added(served[len(served)-1].Manifest, m), m); err != nil {
			return err
		}
	}
	return nil
}

// misfitting lists the differences that do not fit.
func misfitting(differences []schema.Difference) string {
	var said []string
	for _, d := range differences {
		if !d.Fits {
			said = append(said, d.String())
		}
	}
	return strings.Join(said, "; ")
}

// widen adds the columns that m has beyond the manifests that are served. One
// that somebody has added to the table already is taken as it is, if it fits.
func (s *survey) widen(have *shape, served []AppliedManifest, m schema.Manifest) error {
	base := s.applied.Revision.Manifest
	earlier := allAdded(base, served)
	added := schema.Added(served[len(served)-1].Manifest, m)
	if len(added) == 0 {
		return nil
	}
	if err := s.addColumns(have, s.applied.Revision.Physical, added, m); err != nil {
		return err
	}
	s.lock = &m.Table
	s.change = append(s.change, ddl.PostgresWidenView(base, s.applied.Revision.Physical, append(earlier, added...)))
	return nil
}

// addColumns adds to a table those of the columns that it lacks.
func (s *survey) addColumns(have *shape, table schema.Table, added []schema.Column, m schema.Manifest) error {
	var missing []schema.Column
	for _, c := range added {
		there, ok := have.columns[c.Name]
		switch {
		case !ok:
			missing = append(missing, c)
		case there.computed || there.required || !there.takes(c.Type, false):
			return refused(m, "the table %s has a column %q already, %s, and the manifest needs %s, nullable: drop it, or name another",
				ddl.PostgresName(table), c.Name, there.text, accepted(c.Type, false))
		}
	}
	if len(missing) > 0 {
		statement, err := ddl.PostgresAddColumns(table, missing)
		if err != nil {
			return refused(m, "%w", err)
		}
		s.change = append(s.change, statement)
	}
	return nil
}

// examineExisting looks at a dataset whose table was there before.
func examineExisting(ctx context.Context, tx pgx.Tx, m schema.Manifest) (survey, error) {
	s, err := newRevision(ctx, tx, m)
	if err != nil {
		return s, err
	}
	var owner string
	switch err := tx.QueryRow(ctx, selectTableOwner, m.Table.Schema, m.Table.Name).Scan(&owner); {
	case err == nil:
		return s, refused(m, "the table %s holds dataset %s already: name another table in the manifest", ddl.PostgresName(m.Table), owner)
	case !errors.Is(err, pgx.ErrNoRows):
		return s, err
	}
	var have shape
	err = have.read(ctx, tx, m.Table)
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000") {
		return s, refused(m, "there is no table %s: make it, or leave existing out of the manifest, and it is made", ddl.PostgresName(m.Table))
	}
	if err != nil {
		return s, err
	}
	if err := have.check(m.Table, []*schema.Manifest{&m}); err != nil {
		return s, refusedTable(m, err)
	}
	return s, nil
}

// refusedTable is the error for a manifest that a table does not fit.
func refusedTable(m schema.Manifest, err error) error { return refused(m, "%w", err) }

// moment is how long a change waits for a lock: less than a loader does.
func (c Config) moment() time.Duration { return c.LockTimeout / 3 }

// lockView locks a view and, behind it, the table of the revision: in the order
// in which a reader of the view does. To begin with the table would deadlock.
func lockView(ctx context.Context, tx pgx.Tx, view schema.Table, moment time.Duration) error {
	if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(moment)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "LOCK TABLE "+ddl.PostgresName(view)+" IN ACCESS EXCLUSIVE MODE")
	return err
}

// isLocked says that somebody else held a lock for too long.
func isLocked(err error) bool {
	var e *sink.Error
	return errors.As(err, &e) && e.Reason == reasonLocked
}

const selectHolders = `
SELECT format('session %s (%s, in a transaction since %s)', a.pid, coalesce(nullif(a.application_name, ''), 'unnamed'),
              date_trunc('second', a.xact_start))
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE l.granted AND a.datname = current_database() AND l.relation IN (SELECT to_regclass(name) FROM unnest($1::text[]) AS name)
GROUP BY a.pid, a.application_name, a.xact_start
ORDER BY a.xact_start
LIMIT 3`

// inUse says who keeps a dataset from being changed, by holding one of the
// tables, and what therefore is.
func (w *Warehouse) inUse(ctx context.Context, d schema.Dataset, what string, tables []schema.Table, err error) error {
	var holders, names []string
	for _, t := range tables {
		names = append(names, ddl.PostgresName(t))
	}
	rows, failed := w.pool.Query(ctx, selectHolders, names)
	if failed == nil {
		holders, failed = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	who := oneLine(strings.Join(holders, ", "))
	if failed != nil || who == "" {
		who = "sessions that are gone by now"
	}
	return &sink.Error{Class: sink.Retryable, Reason: reasonLocked, Err: fmt.Errorf(
		"the table of %s is in use: held by %s. %s: run it again, or end what holds it (%w)",
		d, who, what, err)}
}
