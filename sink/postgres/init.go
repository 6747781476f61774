package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"tallyman/schema/batch"
	"tallyman/sink"
)

//go:embed migrations/*.sql
var migrations embed.FS

// versionTable is where it is kept which migrations ran.
const versionTable = "tallyman.schema_version"

// The reasons for a warehouse that this program must leave alone: a later
// release made its schema, or it is another than the configured one.
const (
	reasonNewerSchema batch.Reason = "newer_schema"
	reasonTarget      batch.Reason = "target_mismatch"
)

// initLock is the key of the advisory lock that makes inits and applies wait
// for one another: "tallyman" as eight bytes.
const initLock = 0x74616c6c796d616e

// InitOptions say how to prepare a warehouse.
type InitOptions struct {
	// RenameTarget gives a warehouse that has another name the configured one,
	// for a copy that starts a life of its own.
	RenameTarget bool
	// MonthsAhead is how many months after this one the ledger has partitions
	// for. Defaults to 24.
	MonthsAhead int
	// Retention, unless nil, is how long the ledger keeps batches from now on; it
	// is stored, and every later Init goes by it. Defaults to what is stored.
	Retention *Retention
	// Roles makes the roles of RolesScript first, which takes a user who may.
	Roles bool
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// InitReport says what Init found and did.
type InitReport struct {
	Target     string      `json:"target"`
	From       int64       `json:"from_version"` // of the schema; 0: there was none
	To         int64       `json:"to_version"`
	Partitions []string    `json:"partitions_made"` // of the ledger
	Window     sink.Window `json:"-"`
	// Forgotten are the partitions that the ledger gave up, and Held one that is
	// still in use: the next Init goes on.
	Forgotten []string `json:"partitions_forgotten,omitempty"`
	Held      string   `json:"partition_held,omitempty"`
	Retention string   `json:"retention"` // as it is stored
	// TablePartitions are those that the tables of datasets got.
	TablePartitions []string           `json:"table_partitions_made,omitempty"`
	Skipped         []SkippedPartition `json:"table_partitions_skipped,omitempty"`
}

// Init creates the schema tallyman or brings it up to date, and makes the
// partitions ahead of the ledger and of datasets' tables. By the retention, if
// one is set, the ledger forgets months. It is safe to repeat, to interrupt, and
// to run at the same time as another or as loaders. It needs a connection
// without a pooler in between.
func (w *Warehouse) Init(ctx context.Context, o InitOptions) (InitReport, error) {
	if o.MonthsAhead == 0 {
		o.MonthsAhead = 24
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var report InitReport
	if o.Roles {
		if err := w.makeRoles(ctx); err != nil {
			return report, w.class("init", err)
		}
	}
	err := w.alone(ctx, func(conn *pgx.Conn) (err error) {
		if err = createSchema(ctx, conn, "tallyman"); err != nil {
			return err
		}
		if report.From, report.To, err = w.migrate(ctx); err != nil {
			return err
		}
		if report.Target, err = w.name(ctx, conn, o.RenameTarget); err != nil {
			return err
		}
		if report.Partitions, err = fillLedger(ctx, conn, o.Now(), o.MonthsAhead); err != nil {
			return err
		}
		if err := grant(ctx, conn); err != nil {
			return step("grant", err)
		}
		if err := w.retain(ctx, conn, o, &report); err != nil {
			return err
		}
		ledger, err := readExtent(ctx, conn)
		if err != nil {
			return err
		}
		if report.Window, err = ledger.window(); err != nil {
			return err
		}
		return w.extendTables(ctx, conn, o.Now(), &report)
	})
	return report, w.class("init", err)
}

// alone runs f on a connection of its own while no other init or apply runs.
func (w *Warehouse) alone(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, w.owner())
	if err != nil {
		return step("connect", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		// With the connection the lock goes too, but a moment after Close.
		_, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock_all()")
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(initLock)); err != nil {
		return step("wait for another init", err)
	}
	return f(conn)
}

// createSchema creates a schema that isn't there. CREATE SCHEMA IF NOT EXISTS
// asks for a right on the database even when there is nothing to do.
func createSchema(ctx context.Context, q queryer, name string) error {
	quoted := pgx.Identifier{name}.Sanitize()
	var there bool
	var role string
	err := q.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL, quote_ident(current_user)", quoted).Scan(&there, &role)
	if err != nil || there {
		return err
	}
	_, err = q.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+quoted)
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == "42501" {
		return &sink.Error{Class: sink.Misconfigured, Reason: reasonNoPrivilege, Err: fmt.Errorf(
			"create schema %s: %w; have it made with: CREATE SCHEMA %[1]s AUTHORIZATION %[3]s", quoted, describe(pg), role)}
	}
	return step("create schema "+quoted, err)
}

// step gives an error of set-up its class and names the step.
func step(name string, err error) error { return classify(name, inCatalog, target{}, err) }

// queryer is what connections, transactions and the pool can do.
type queryer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// migrate runs the migrations that the warehouse lacks.
func (w *Warehouse) migrate(ctx context.Context) (from, to int64, err error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, 0, err
	}
	db := stdlib.OpenDB(*w.owner())
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return 0, 0, fmt.Errorf("read migrations: %w", err)
	}
	if from, err = p.GetDBVersion(ctx); err != nil {
		return 0, 0, step("read the schema's version", err)
	}
	sources := p.ListSources()
	newest := sources[len(sources)-1].Version
	if from > newest {
		return 0, 0, &sink.Error{Class: sink.Misconfigured, Reason: reasonNewerSchema, Err: fmt.Errorf(
			"the schema tallyman is at version %d, this program knows versions up to %d: use a newer release", from, newest)}
	}
	if _, err = p.Up(ctx); err != nil {
		return 0, 0, step("migrate the schema tallyman", err)
	}
	return from, newest, nil
}

// name stores the configured target if there is none, and returns the stored one.
func (w *Warehouse) name(ctx context.Context, conn *pgx.Conn, rename bool) (string, error) {
	const store = `
INSERT INTO tallyman.target (name) VALUES ($1)
ON CONFLICT (one_row) DO UPDATE SET name = excluded.name WHERE $2`
	if _, err := conn.Exec(ctx, store, w.cfg.Target, rename); err != nil {
		return "", step("store the target's name", err)
	}
	var name string
	if err := conn.QueryRow(ctx, `SELECT name FROM tallyman.target`).Scan(&name); err != nil {
		return "", step("read the target's name", err)
	}
	if name != w.cfg.Target {
		return "", &sink.Error{Class: sink.Misconfigured, Reason: reasonTarget, Err: fmt.Errorf(
			"the warehouse calls itself %q, but warehouse.target is %q: set it to the former, "+
				"or run init --rename-target if this is a copy with a life of its own", name, w.cfg.Target)}
	}
	return name, nil
}
