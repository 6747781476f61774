package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	narrowOrders = "dataset: wide/orders\ncolumns:\n  - {name: n, type: int64}\n  - {name: item, type: text, nullable: true}\n"
	wideOrders   = "dataset: wide/orders\ncolumns:\n  - {name: price, type: float64, nullable: true}\n  - {name: n, type: int64}\n  - {name: item, type: text, nullable: true}\n"
	perFile      = 2_500 // rows, which are three batches
)

// pusher is a source: one process after another pushes a file each.
type pusher struct {
	env      []string
	dir      string
	manifest string
	header   string
	line     func(n int) string
	first    int // the number of its first row
	rows     atomic.Int64
}

func newPusher(t *testing.T, s *badSite, name, manifest string) *pusher {
	t.Helper()
	return &pusher{
		dir: t.TempDir(), manifest: file(t, name+".yaml", manifest),
		env: append(os.Environ(), asProgram, "KAFKA_BROKERS="+s.broker.Addr(), "TALLYMAN_SOURCE_NAME="+name, "HOME="+t.TempDir()),
	}
}

// push makes one more file and has a process push it.
func (p *pusher) push() error {
	from := p.first + int(p.rows.Load())
	var text strings.Builder
	text.WriteString(p.header)
	for n := range perFile {
		text.WriteString(p.line(from + n))
	}
	path := filepath.Join(p.dir, fmt.Sprint(from)+".csv")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0], "push", "wide/orders", "--manifest", p.manifest, path)
	cmd.Env = p.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("push: %w\n%s", err, out)
	}
	p.rows.Add(perFile)
	return nil
}

// A column is added while two loader processes load and sources publish by the
// old manifest; then one by the new manifest publishes beside them. Every row is
// there once, and the new column is null in the old rows: by plain SQL. No loader
// was started again, and nothing went to quarantine.
func TestColumnAddedWhileLoading(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	succeed(t, s.env, "dataset", "apply", file(t, "narrow.yaml", narrowOrders), "--partitions", "4", "--replication-factor", "1")
	succeed(t, s.env, "job", "deploy", "load", parse(t, narrowOrders).Dataset.String())
	s.exec("GRANT INSERT, SELECT ON public.orders__r1 TO " + pgx.Identifier{s.role}.Sanitize())
	loaders := []*process{s.load(), s.load()}
	for _, p := range loaders {
		p.until("readiness", func() bool { return p.ready() == "ok\n" })
	}
	old, young := newPusher(t, s, "old", narrowOrders), newPusher(t, s, "new", wideOrders)
	old.header, old.line = "n,item\n", func(n int) string { return fmt.Sprintf("%d,item %[1]d\n", n) }
	young.first, young.header, young.line = 1_000_000, "price,n,item\n", func(n int) string { return fmt.Sprintf("%d.5,%[1]d,item %[1]d\n", n) }

	count := func(sql string) (n int64) {
		t.Helper()
		if err := s.owner.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var group errgroup.Group
	stop := make(chan struct{})
	group.Go(func() error {
		for {
			if err := old.push(); err != nil {
				return err
			}
			select {
			case <-stop:
				return nil
			default:
			}
		}
	})
	loaders[0].until("first rows", func() bool { return count("SELECT count(*) FROM public.orders") > 2*perFile })
	contains(t, succeed(t, s.env, "dataset", "apply", file(t, "wide.yaml", wideOrders)), "takes rows by a further manifest", `column "price" is new: float64, nullable`)
	applied := old.rows.Load()
	group.Go(func() error {
		defer close(stop)
		for young.rows.Load() < 6*perFile || old.rows.Load() < applied+2*perFile {
			if err := young.push(); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	all := old.rows.Load() + young.rows.Load()
	loaders[0].until(fmt.Sprintf("%d rows", all), func() bool { return count("SELECT count(*) FROM public.orders") >= all })
	for what, n := range map[string]struct {
		want int64
		sql  string
	}{
		"rows":              {all, "SELECT count(*) FROM public.orders"},
		"different rows":    {all, "SELECT count(DISTINCT n) FROM public.orders"},
		"old rows":          {old.rows.Load(), "SELECT count(*) FROM public.orders WHERE price IS NULL AND n < 1000000 AND item = 'item ' || n"},
		"new rows":          {young.rows.Load(), "SELECT count(*) FROM public.orders WHERE price = n + 0.5 AND n >= 1000000 AND item = 'item ' || n"},
		"rows in ledger":    {all, "SELECT sum(row_count) FROM tallyman.loaded_elements"},
		"in quarantine":     {0, "SELECT count(*) FROM tallyman.quarantine"},
		"batches and rows":  {0, "SELECT count(*) FROM tallyman.loaded_elements l WHERE row_count <> (SELECT count(*) FROM public.orders WHERE _batch_id = unique_id)"},
		"columns in order":  {4, "SELECT attnum FROM pg_attribute WHERE attrelid = 'public.orders'::regclass AND attname = 'price'"},
		"partitions loaded": {4, "SELECT count(*) FROM tallyman.positions WHERE next_offset > 0"},
	} {
		if got := count(n.sql); got != n.want {
			t.Errorf("%s: %d, want %d", what, got, n.want)
		}
	}
	for _, p := range loaders {
		if strings.Count(p.log.String(), `msg="metrics and probes"`) != 1 || !strings.Contains(p.log.String(), "loading by a further manifest") {
			t.Errorf("a loader did not take the manifest up as it ran:\n%s", p.log)
		}
	}
	t.Logf("%d rows by the old manifest, %d of them before the change, %d by the new", old.rows.Load(), applied, young.rows.Load())
}
