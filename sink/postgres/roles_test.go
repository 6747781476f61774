package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// staff is a warehouse with roles, on a server of its own since roles belong to
// a server, and a user for each.
type staff struct {
	*warehouse // as the superuser sees it
	loader     *warehouse
	reader     *warehouse
	next       int32 // partition that nothing was read of
}

// as opens the warehouse as a user.
func (w *warehouse) as(user string) *warehouse {
	w.t.Helper()
	dsn := strings.Replace(w.dsn, "postgres@", user+"@", 1)
	other := *w
	var err error
	if other.Warehouse, err = postgres.Open(w.t.Context(), postgres.Config{URL: dsn}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(other.Close)
	other.conn = session(w.t, dsn)
	return &other
}

func newStaff(t *testing.T, version string) *staff {
	t.Helper()
	admin := session(t, sandboxtest.Server(t, version).DSN("postgres"))
	dsn := fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", admin.Config().Port)
	first, err := postgres.Open(t.Context(), postgres.Config{URL: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Close)
	s := &staff{warehouse: &warehouse{t: t, dsn: dsn, conn: admin, Warehouse: first}}
	if _, err := first.Init(t.Context(), postgres.InitOptions{Roles: true}); err != nil {
		t.Fatal(err)
	}
	execute(t, admin, "CREATE ROLE ana LOGIN IN ROLE tallyman_owner", "CREATE ROLE lo LOGIN IN ROLE tallyman_loader", "CREATE ROLE re LOGIN IN ROLE tallyman_reader")
	m := manifest(t, events)
	owner := s.as("ana")
	if _, err := owner.Init(t.Context(), postgres.InitOptions{}); err != nil {
		t.Fatalf("init as owner: %v", err)
	}
	applied, err := owner.Apply(t.Context(), m)
	if err != nil {
		t.Fatalf("apply as owner: %v", err)
	}
	s.revision = applied.Revision
	if s.codec, err = rows.NewCodec(m); err != nil {
		t.Fatal(err)
	}
	s.loader, s.reader = s.as("lo"), s.as("re")
	return s
}

// load does everything that a loader does, rewind and status included, on a
// partition that nothing was read of.
func (s *staff) load(ctx context.Context) error {
	w := s.loader
	_, targetErr := w.Target(ctx)
	_, windowErr := w.Window(ctx)
	_, extendErr := w.ExtendLedger(ctx)
	if _, err := w.Datasets(ctx); errors.Join(err, targetErr, windowErr, extendErr) != nil {
		return errors.Join(err, targetErr, windowErr, extendErr)
	}
	s.next++
	at, err := w.Assign(ctx, w.revision, []sink.Partition{{Cluster: "default", Topic: w.revision.Manifest.Topic, Number: s.next}})
	if err != nil {
		return err
	}
	p := at[0]
	a := w.element(batch.NewID(), p, 0, []any{int64(1), "one"})
	again, other := a, w.element(a.Batch.ID, p, 2, []any{int64(2), "other"})
	again.Offset = 1
	dead := w.element(batch.NewID(), p, 3, []any{int64(3), "dead"})
	g := w.group(p, 4, a, again, other)
	dead.Batch.ID = uuid.New() // of version 4
	dead.Batch.Seal()
	dead.Key, dead.Headers = dead.Batch.Key(), dead.Batch.Headers()
	g.Dead = []sink.Dead{{Message: dead.Message, Batch: dead.Batch, Reason: batch.NoManifest, Detail: "none"}}
	g.Advances[0].Anchor = &sink.Anchor{Offset: 3, Timestamp: dead.Timestamp}
	c := w.NewCommitter()
	defer func() { _ = c.Close() }()
	if _, err := c.Commit(ctx, g); err != nil {
		return err
	}
	a.Offset = 4 // a duplicate of another transaction
	p.Next = 4
	if _, err := c.Commit(ctx, w.group(p, 5, a)); err != nil {
		return err
	}
	if _, err := w.Move(ctx, w.revision, sink.Move{Partition: p.Partition, Era: p.Era, From: 5, To: 9, LogStart: 9, Gap: "expired"}); err != nil {
		return err
	}
	if _, err := w.Rewind(ctx, w.revision.ID, []postgres.Start{{Partition: p.Partition}}); err != nil {
		return err
	}
	if err := s.tidy(ctx, other); err != nil {
		return err
	}
	if err := errors.Join(s.account(ctx, a), workOnJobs(ctx, w)); err != nil {
		return err
	}
	_, err = w.Status(ctx)
	return err
}

// workOnJobs does what the ledger of jobs does, from the adoption of a job that
// was there before keys to its deletion.
func workOnJobs(ctx context.Context, w *warehouse) error {
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	var id int64
	const add = `INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) VALUES ('legacy:7', 'load', 'a/b', 1) RETURNING job_id`
	if err := tx.QueryRow(ctx, add).Scan(&id); err != nil {
		return err
	}
	for _, sql := range []string{
		`SELECT FROM tallyman.jobs WHERE job_id = $1 FOR UPDATE`,
		`UPDATE tallyman.jobs SET idempotency_key = repeat('0', 64) WHERE job_id = $1`,
		`INSERT INTO tallyman.job_events (job_id, epoch, type, worker, detail) VALUES ($1, 1, 'scheduled', '', '{}') RETURNING event_id, at, detail`,
		`INSERT INTO tallyman.job_status AS s (job_id, status, epoch, worker, attempts, retry_at, detail, updated_at) VALUES ($1, 'scheduled', 1, '', 0, NULL, '{}', now())
			ON CONFLICT (job_id) DO UPDATE SET (status, epoch, worker, attempts, retry_at, detail, updated_at)
			= (EXCLUDED.status, EXCLUDED.epoch, EXCLUDED.worker, EXCLUDED.attempts, EXCLUDED.retry_at, EXCLUDED.detail, EXCLUDED.updated_at)`,
		`INSERT INTO tallyman.job_members (job_id, epoch, member, lease_until) VALUES ($1, 1, 'm', now()) ON CONFLICT (job_id, epoch, member) DO UPDATE SET lease_until = EXCLUDED.lease_until`,
		`DELETE FROM tallyman.job_members WHERE job_id = $1`,
		`DELETE FROM tallyman.jobs WHERE job_id = $1`,
	} {
		if _, err := tx.Exec(ctx, sql, id); err != nil {
			return err
		}
	}
	return nil
}

// account takes announcements and gives up what is missing.
func (s *staff) account(ctx context.Context, e sink.Element) error {
	w := s.loader
	stream := uuid.New()
	for i := range 2 { // the second time, for conflicts with rows that are there
		s.next++
		p := w.partition(s.next)
		var copies []sink.Element
		for n := range i + 1 {
			b := *e.Batch
			b.Incarnation, b.Sequence = stream, uint64(n+1)
			b.Seal()
			more := sink.Element{Message: e.Message, Batch: &b, Content: e.Content, Tuples: e.Tuples}
			more.Partition, more.Offset, more.Headers = p.Partition, int64(n), b.Headers()
			copies = append(copies, more)
		}
		g := w.group(p, 9, copies...)
		for n, sequence := range []uint64{4, 4, 6, 1} {
			g.Announcements = append(g.Announcements, batch.Announcement{Source: "test", Incarnation: stream, Sequence: sequence,
				Dataset: w.revision.Manifest.Dataset, At: e.Batch.Time.Add(time.Duration(10*i+n) * time.Second)})
		}
		c := w.NewCommitter()
		_, err := c.Commit(ctx, g)
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
		if _, err := w.AdvanceFloors(ctx, w.revision); err != nil {
			return err
		}
	}
	if err := s.overreach(ctx, e); err != nil {
		return err
	}
	_, retireErr := w.RetireSource(ctx, sink.Retirement{Revision: w.revision.ID, Source: "test", Incarnation: stream, By: "lo", Why: "a test"})
	_, err := w.AcceptMissing(ctx, sink.Acceptance{Revision: w.revision.ID, Incarnation: stream, First: 1, Last: 9, By: "lo", Why: "a test"})
	return errors.Join(retireErr, err, books(ctx, w), tell(ctx, w))
}

// overreach announces more than may be missing, in a stream that has to be counted.
func (s *staff) overreach(ctx context.Context, e sink.Element) error {
	const most = 1_000_000
	w := s.loader
	s.next++
	p := w.partition(s.next)
	b := *e.Batch
	b.Incarnation, b.Sequence = uuid.New(), most+1
	b.Seal()
	again := sink.Element{Message: e.Message, Batch: &b, Content: e.Content, Tuples: e.Tuples}
	again.Partition, again.Offset, again.Headers = p.Partition, 0, b.Headers()
	g := w.group(p, 9, again)
	for n, sequence := range []uint64{most, most + 2} {
		g.Announcements = append(g.Announcements, batch.Announcement{Source: "test", Incarnation: b.Incarnation, Sequence: sequence,
			Dataset: w.revision.Manifest.Dataset, At: b.Time.Add(time.Duration(n) * time.Second)})
	}
	c := w.NewCommitter()
	res, err := c.Commit(ctx, g)
	if err == nil && (len(res.Refused) != 1 || res.Refused[0].Why != sink.TooManyMissing) {
		err = fmt.Errorf("refused %v", res.Refused)
	}
	return errors.Join(err, c.Close())
}

// tell does everything that is done for receipts.
func tell(ctx context.Context, w *warehouse) error {
	d := sink.Due{Revision: w.revision, Cluster: "default", Limit: 10}
	taken, _, err := w.TakeReceipts(ctx, d)
	if err == nil && len(taken) == 0 {
		err = errors.New("no receipt is due")
	}
	_, ageErr := w.ReceiptsAge(ctx, d)
	return errors.Join(err, ageErr, w.ReceiptsSent(ctx, d, taken))
}

// books reads what is known of streams.
func books(ctx context.Context, w *warehouse) error {
	_, completeErr := w.Completeness(ctx, w.revision, 0)
	_, missingErr := w.Missing(ctx, "", 0)
	return errors.Join(completeErr, missingErr)
}

// tidy redrives in vain, and then discards, what load quarantined.
func (s *staff) tidy(ctx context.Context, e sink.Element) error {
	w := s.loader
	l, err := w.Quarantine().List(ctx, sink.Selection{ID: e.Batch.ID, State: sink.Open}, 1)
	if err != nil {
		return err
	}
	if len(l.Kept) != 1 {
		return fmt.Errorf("%d messages of %s in quarantine", len(l.Kept), e.Batch.ID)
	}
	refuse := func(m sink.Message, _ *schema.Manifest) (*sink.Element, *sink.Dead) {
		return nil, &sink.Dead{Message: m, Batch: e.Batch, Reason: batch.Rejected, Detail: "still"}
	}
	if _, err := w.Quarantine().Redrive(ctx, w.revision, l.Kept[0].Key, "lo", refuse); err != nil {
		return err
	}
	_, err = w.Quarantine().Discard(ctx, l.Kept[0].Key, sink.Discard{By: "lo", Why: "a test"})
	return err
}

// read does everything that a reader does. It verifies a table with a row of a
// v4 batch, whose time has to be looked up.
func (s *staff) read(ctx context.Context) error {
	w := s.reader
	if _, err := s.conn.Exec(ctx, "INSERT INTO public.events__r1 (n, _batch_id) VALUES (0, gen_random_uuid())"); err != nil {
		return err
	}
	v := w.NewVerifier(postgres.DatasetInfo{Revision: s.revision}, postgres.VerifyOptions{Values: true})
	_, verifyErr := v.Next(ctx)
	if _, err := s.conn.Exec(ctx, "DELETE FROM public.events__r1 WHERE n = 0"); err != nil {
		return err
	}
	_, targetErr := w.Target(ctx)
	_, windowErr := w.Window(ctx)
	_, statusErr := w.Status(ctx)
	_, rowsErr := w.conn.Exec(ctx, "SELECT * FROM public.events")
	_, jobsErr := w.conn.Exec(ctx, "SELECT * FROM tallyman.jobs JOIN tallyman.job_status USING (job_id) JOIN tallyman.job_events USING (job_id) JOIN tallyman.job_members USING (job_id)")
	return errors.Join(jobsErr, targetErr, windowErr, statusErr, rowsErr, verifyErr, books(ctx, w))
}

func TestRoles(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newStaff(t, version)
			for range 2 { // and once more after everything was granted again
				if err := s.load(t.Context()); err != nil {
					t.Fatalf("as loader: %v", err)
				}
				if err := s.read(t.Context()); err != nil {
					t.Fatalf("as reader: %v", err)
				}
				if _, err := s.Init(t.Context(), postgres.InitOptions{Roles: true}); err != nil {
					t.Fatal(err)
				}
			}
			if n := s.count("SELECT count(*) FROM public.events"); n != 2 {
				t.Errorf("%d rows, want one of each run", n)
			}
			if n := s.count("SELECT count(*) FROM tallyman.loaded_elements"); n != 2 {
				t.Errorf("the ledger has %d batches, want one of each run", n)
			}
			const strangers = `SELECT count(*) FROM pg_class WHERE relnamespace IN ('tallyman'::regnamespace, 'public'::regnamespace) AND relowner <> 'tallyman_owner'::regrole`
			if n := s.count(strangers); n != 0 {
				t.Errorf("%d relations belong to somebody else", n)
			}
			s.checkForbidden(t)
			s.checkLeast(t, "tallyman_loader", s.load)
			s.checkLeast(t, "tallyman_reader", s.read)
		})
	}
}

// checkForbidden tries what loader and reader must not do.
func (s *staff) checkForbidden(t *testing.T) {
	t.Helper()
	statements := []string{
		"CREATE TABLE tallyman.x ()", "CREATE TABLE public.x ()", "CREATE SCHEMA x", "CREATE ROLE x",
		"ALTER TABLE tallyman.loaded_elements ADD x integer", "ALTER TABLE public.events__r1 ADD x integer", "DROP VIEW public.events",
		"DROP TABLE tallyman.quarantine", "TRUNCATE tallyman.gaps", "TRUNCATE public.events__r1", "SET ROLE tallyman_owner",
		"DELETE FROM tallyman.loaded_elements", "DELETE FROM tallyman.quarantine", "DELETE FROM tallyman.positions", "DELETE FROM tallyman.streams", "DELETE FROM tallyman.satisfied",
		"UPDATE tallyman.satisfied SET reason = 'accepted'", "DELETE FROM public.events__r1",
		"UPDATE tallyman.loaded_elements SET row_count = 0", "UPDATE tallyman.quarantine SET payload = ''", "UPDATE public.events__r1 SET n = 0",
		"UPDATE tallyman.datasets SET topic = ''", "INSERT INTO tallyman.revisions DEFAULT VALUES", "UPDATE tallyman.target SET name = 'x'",
		"CREATE TABLE tallyman.y (LIKE tallyman.loaded_elements)", "COMMENT ON TABLE tallyman.gaps IS 'x'", "GRANT tallyman_owner TO lo",
		"UPDATE tallyman.ledger_window SET horizon = '-infinity'", "SELECT tallyman.add_partitions('2200-01-01')", "SELECT tallyman.fold('tallyman.loaded_elements_older', NULL)",
		"UPDATE tallyman.jobs SET kind = 'x'", "UPDATE tallyman.job_events SET type = 'x'", "DELETE FROM tallyman.job_events", "DELETE FROM tallyman.job_status",
		"SELECT tallyman.recall('tallyman.loaded_elements_older')", "INSERT INTO tallyman.expected_sources VALUES ('a/b', 's', true)",
	}
	for _, who := range []*warehouse{s.loader, s.reader} {
		for _, sql := range statements {
			_, err := who.conn.Exec(t.Context(), sql)
			if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) || pg.Code != "42501" {
				t.Errorf("%s as %s: %v", sql, who.conn.Config().User, err)
			}
		}
	}
	if _, err := s.reader.conn.Exec(t.Context(), "INSERT INTO public.events (n) VALUES (1)"); err == nil {
		t.Error("the reader inserts rows")
	}
	// What another transaction claimed stays claimed.
	const give = `SELECT tallyman.return_claims(revision_id, array_agg(batch_time), array_agg(unique_id)) FROM tallyman.loaded_elements GROUP BY revision_id`
	if _, err := s.loader.conn.Exec(t.Context(), give); err != nil {
		t.Error(err)
	}
	if n := s.count("SELECT count(*) FROM tallyman.loaded_elements"); n != 2 {
		t.Errorf("the loader made the ledger forget batches: %d are left", n)
	}
}

// granted are a role's privileges, each as what comes between GRANT and TO.
const granted = `
SELECT format('%s ON %s', a.privilege_type, c.oid::regclass) AS what FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee = $1::regrole
UNION ALL
SELECT format('%s (%I) ON %s', a.privilege_type, t.attname, t.attrelid::regclass) FROM pg_attribute t, aclexplode(t.attacl) a WHERE a.grantee = $1::regrole
UNION ALL
SELECT format('%s ON SCHEMA %I', a.privilege_type, n.nspname) FROM pg_namespace n, aclexplode(n.nspacl) a WHERE a.grantee = $1::regrole
UNION ALL
SELECT format('%s ON FUNCTION %s', a.privilege_type, p.oid::regprocedure) FROM pg_proc p, aclexplode(p.proacl) a WHERE a.grantee = $1::regrole
ORDER BY 1`

// checkLeast takes a role's privileges away one by one: none is there that its
// work does without.
func (s *staff) checkLeast(t *testing.T, role string, work func(context.Context) error) {
	t.Helper()
	found, err := s.conn.Query(t.Context(), granted, role)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil || len(all) < 8 {
		t.Fatalf("%d privileges: %v", len(all), err)
	}
	for _, what := range all {
		execute(t, s.conn, "REVOKE "+what+" FROM "+role)
		if err := work(t.Context()); err == nil {
			t.Errorf("%s works without %s", role, what)
		} else if !strings.Contains(err.Error(), "42501") && !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s without %s: %v", role, what, err)
		}
		execute(t, s.conn, "GRANT "+what+" TO "+role)
	}
	if err := work(t.Context()); err != nil {
		t.Errorf("%s with everything back: %v", role, err)
	}
	t.Logf("%s has %d privileges and needs each", role, len(all))
}

// Every table is for somebody: one that a migration adds has to be granted, or
// to be named here.
func TestEveryTableIsGranted(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	found, err := w.conn.Query(t.Context(), `
SELECT relname FROM pg_class
WHERE relnamespace = 'tallyman'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition 
    AND relname NOT IN ('schema_version', 'expected_sources')`) // they read the view of it
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if !strings.Contains(postgres.RolesScript(), "tallyman."+table) {
			t.Errorf("no role may read tallyman.%s: see grants.sql", table)
		}
	}
}

// An installation from before there were roles is handed over to the owner, its
// datasets too.
func TestRolesLater(t *testing.T) {
	t.Parallel()
	server := sandboxtest.Server(t, "18")
	w := open(t, server.DSN("postgres"), events, postgres.Config{})
	s := &staff{warehouse: w}
	if _, err := w.Init(t.Context(), postgres.InitOptions{Roles: true}); err != nil {
		t.Fatal(err)
	}
	execute(t, w.conn, "CREATE ROLE lo LOGIN IN ROLE tallyman_loader", "CREATE ROLE re LOGIN IN ROLE tallyman_reader")
	s.loader, s.reader = w.as("lo"), w.as("re")
	if err := errors.Join(s.load(t.Context()), s.read(t.Context())); err != nil {
		t.Error(err)
	}
	const strangers = `SELECT count(*) FROM pg_class WHERE relnamespace IN ('tallyman'::regnamespace, 'public'::regnamespace) AND relowner <> 'tallyman_owner'::regrole`
	if n := w.count(strangers); n != 0 {
		t.Errorf("%d relations belong to somebody else", n)
	}
}

// Where roles come later, the view of a dataset goes to the owner, too, whatever
// the table is called that it is over.
func TestRolesTakeOverNamedRevision(t *testing.T) {
	t.Parallel()
	admin := session(t, sandboxtest.Server(t, "18").DSN("postgres"))
	w := open(t, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", admin.Config().Port), events, postgres.Config{})
	n := w.second("by_name")
	w.activates(n.revision, false)
	if _, err := w.Init(t.Context(), postgres.InitOptions{Roles: true}); err != nil {
		t.Fatal(err)
	}
	execute(t, admin, "CREATE ROLE ana LOGIN IN ROLE tallyman_owner", "CREATE ROLE lo LOGIN IN ROLE tallyman_loader")
	back := postgres.Activation{Dataset: w.revision.Manifest.Dataset, Revision: w.revision.ID}
	if _, err := w.as("lo").Activate(t.Context(), back); sink.ClassOf(err) != sink.Misconfigured {
		t.Errorf("as the loader: %v", err)
	}
	if _, err := w.as("ana").Activate(t.Context(), back); err != nil {
		t.Error(err)
	}

	// An operator who may ends a loader that is frozen, though it is another user.
	dsn := w.dsn
	w.dsn = strings.Replace(dsn, "postgres@", "lo@", 1)
	_, d, copied := w.copying(w.partition(0), "tallyman/frozen", 0)
	w.activates(n.revision, false)
	close(d.end)
	if err := <-copied; err == nil {
		t.Error("the frozen COPY went through")
	}
}
