package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"tallyman/schema"
	"tallyman/sink"
)

// Warehouse is one PostgreSQL database with the schema tallyman. It implements
// sink.Catalog, sink.Manifests and sink.Positions and is safe for concurrent use.
type Warehouse struct {
	cfg  Config
	conn *pgx.ConnConfig // how committers connect
	pool *pgxpool.Pool
}

var (
	_ sink.Catalog   = (*Warehouse)(nil)
	_ sink.Positions = (*Warehouse)(nil)
	_ sink.Manifests = (*Warehouse)(nil)
	_ sink.Extender  = (*Warehouse)(nil)
)

// Open reads the configuration and prepares the pool. It does not connect: a
// warehouse that is away is an error of the first call that needs it, and
// every such error has a class (see sink.ClassOf).
func Open(ctx context.Context, c Config) (*Warehouse, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	cc, err := c.connConfig()
	if err != nil {
		return nil, err
	}
	// Only pgxpool.ParseConfig makes a valid pool configuration, and it takes
	// the pool_… parameters out of the string that pgx would send on.
	pc, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("parse connection string: %w", err)
	}
	for name := range cc.RuntimeParams {
		if _, known := pc.ConnConfig.RuntimeParams[name]; !known && name != "application_name" {
			delete(cc.RuntimeParams, name)
		}
	}
	pc.ConnConfig = cc
	pc.MaxConns = int32(c.MaxConns)
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return &Warehouse{cfg: c, conn: cc, pool: pool}, nil
}

// patience is how long a statement may be silent that is known to take its
// time: a wait for another init, a migration, a count of the ledger. The kernel
// still notices a server that is gone.
const patience = 24 * time.Hour

// patient is how to connect for such statements.
func (w *Warehouse) patient() *pgx.ConnConfig {
	cc := w.conn.Copy()
	dial := cc.DialFunc
	cc.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if c, ok := conn.(*stallConn); ok {
			c.limit = patience
		}
		return conn, err
	}
	return cc
}

// Close closes the pool. Committers are closed on their own.
func (w *Warehouse) Close() { w.pool.Close() }

// Pool returns the pool, for what else is kept in the same database. It stays the
// warehouse's.
func (w *Warehouse) Pool() *pgxpool.Pool { return w.pool }

// Classify gives an error of a statement on the Pool its class, and names the step.
func (w *Warehouse) Classify(step string, err error) error { return w.class(step, err) }

// Ping asks the warehouse for a sign of life.
func (w *Warehouse) Ping(ctx context.Context) error { return w.class("ping", w.pool.Ping(ctx)) }

// class gives an error of a pool query its class and names the step. A server
// that is shutting down or read-only takes the pool's other connections with it.
func (w *Warehouse) class(step string, err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "57P01" || pg.Code == "25006") {
		w.pool.Reset()
	}
	var classed *sink.Error
	if errors.As(err, &classed) {
		return err
	}
	err = classify(step, inCatalog, target{}, err)
	if errors.As(err, &classed) && classed.Reason == reasonNotInitialised {
		classed.Err = fmt.Errorf("%w: run tallyman init first", classed.Err)
	}
	return err
}

// Target returns the name stored in the warehouse.
func (w *Warehouse) Target(ctx context.Context) (string, error) {
	const q = `SELECT name FROM tallyman.target`
	var name string
	err := w.pool.QueryRow(ctx, q).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", &sink.Error{Class: sink.Misconfigured, Reason: reasonNotInitialised,
			Err: errors.New("the warehouse has no name: run tallyman init")}
	}
	return name, w.class("read target", err)
}

// ActiveRevisions returns the active revision of every dataset, by name.
func (w *Warehouse) ActiveRevisions(ctx context.Context) ([]sink.Revision, error) {
	infos, err := w.Datasets(ctx)
	if err != nil {
		return nil, err
	}
	var active []sink.Revision
	for _, i := range infos {
		if i.Revision.State == sink.Active {
			active = append(active, i.Revision)
		}
	}
	return active, nil
}

// DatasetInfo is a dataset with one of its revisions.
type DatasetInfo struct {
	Revision  sink.Revision
	Hash      string // of the manifest that the revision was made from
	CreatedAt time.Time
	// Manifests are all that the table takes rows by, each with the columns of the
	// one before it: the last has every column.
	Manifests []AppliedManifest
}

const selectDatasets = `
SELECT r.revision_id, r.physical_schema, r.physical_table, r.state, r.created_at, d.manifest_hash, d.manifest
FROM tallyman.revisions r
JOIN tallyman.datasets d USING (dataset, manifest_hash)
WHERE r.state <> 'retired'
ORDER BY r.dataset, r.revision_id`

// Datasets returns every dataset with its revisions, but for those that were
// dropped, by name and revision.
func (w *Warehouse) Datasets(ctx context.Context) ([]DatasetInfo, error) {
	return w.datasets(ctx, w.pool)
}

// DatasetsIn is Datasets as a transaction sees them.
func (w *Warehouse) DatasetsIn(ctx context.Context, tx pgx.Tx) ([]DatasetInfo, error) {
	return w.datasets(ctx, tx)
}

func (w *Warehouse) datasets(ctx context.Context, q queryer) ([]DatasetInfo, error) {
	rows, err := q.Query(ctx, selectDatasets)
	if err != nil {
		return nil, w.class("read datasets", err)
	}
	infos, err := pgx.CollectRows(rows, scanDataset)
	if err != nil {
		return nil, w.class("read datasets", err)
	}
	all, err := readManifests(ctx, q, "")
	if err != nil {
		return nil, w.class("read manifests", err)
	}
	for i := range infos {
		infos[i].Manifests = servedBy(infos[i].Revision, all[infos[i].Revision.Manifest.Dataset.String()])
	}
	return infos, nil
}

func scanDataset(row pgx.CollectableRow) (DatasetInfo, error) {
	var (
		i        DatasetInfo
		manifest []byte
	)
	r := &i.Revision
	err := row.Scan(&r.ID, &r.Physical.Schema, &r.Physical.Name, &r.State, &i.CreatedAt, &i.Hash, &manifest)
	if err != nil {
		return i, err
	}
	if r.Manifest, err = schema.ParseCanonical(manifest); err != nil {
		return i, fmt.Errorf("manifest of revision %d: %w", r.ID, err)
	}
	if got := r.Manifest.Hash(); got != i.Hash {
		return i, fmt.Errorf("manifest of revision %d has hash %s, stored as %s", r.ID, got, i.Hash)
	}
	return i, nil
}
