package torture

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const eventsManifest = `
dataset: proof/events
columns:
  - {name: id, type: int64}
  - {name: at, type: timestamptz}
  - {name: kind, type: text}
  - {name: amount, type: float64, nullable: true}
  - {name: note, type: text, nullable: true}
`

// The statements of the comparison: what the files hold, less what the table
// holds, and the other way round, every copy counted.
const (
	sentTable = `CREATE TABLE sent (id bigint, at timestamptz, kind text, amount double precision, note text)`
	sentRows  = `(SELECT * FROM sent WHERE id > %[1]d)`
	haveRows  = `(SELECT id, at, kind, amount, note FROM public.events WHERE id > %[1]d)`
	missing   = `SELECT count(*) FROM (` + sentRows + ` EXCEPT ALL ` + haveRows + `) missing`
	surplus   = `SELECT count(*) FROM (` + haveRows + ` EXCEPT ALL ` + sentRows + `) surplus`
	loaded    = `SELECT count(*) FROM public.events`

	// The ledger is asked only for when to strike, since it answers faster.
	ledger = `SELECT coalesce(sum(row_count), 0)::bigint FROM tallyman.loaded_elements`
)

// events writes files of rows that nobody has seen before.
type events struct {
	random *rand.Rand
	dir    string
	files  int
	rows   int64
}

// write makes a CSV file of n rows.
func (e *events) write(n int) (string, error) {
	e.files++
	name := filepath.Join(e.dir, fmt.Sprintf("events-%d.csv", e.files))
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	w := csv.NewWriter(f)
	_ = w.Write([]string{"id", "at", "kind", "amount", "note"}) // Flush keeps the error
	notes := []string{"", "plain", "tab\there", "line\nbreak", `quo"te`, `\.`, `\N`, "Größe \U0001F45F", "a,b"}
	for range n {
		e.rows++
		at := time.UnixMicro(1_760_000_000_000_000 + e.random.Int64N(1e12)).UTC()
		_ = w.Write([]string{
			strconv.FormatInt(e.rows, 10), at.Format(time.RFC3339Nano), strings.Repeat("x", 1+e.random.IntN(100)),
			strconv.FormatFloat(e.random.NormFloat64(), 'g', -1, 64), notes[e.random.IntN(len(notes))],
		})
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return "", err
	}
	return name, f.Close()
}

// sent has PostgreSQL read a file into the table of what was sent.
func (s *site) sent(file string) {
	s.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := s.conn.PgConn().CopyFrom(s.t.Context(), f, "COPY sent FROM STDIN (FORMAT csv, HEADER)"); err != nil {
		s.t.Fatal(err)
	}
}

// compare compares what was sent with the table, from an id on.
func (s *site) compare(when string, above int64) {
	s.t.Helper()
	lost, more := s.count(fmt.Sprintf(missing, above)), s.count(fmt.Sprintf(surplus, above))
	if lost != 0 || more != 0 {
		s.t.Fatalf("%s: %d rows are lost or altered, %d are doubled or altered", when, lost, more)
	}
}

// Of two loaders one is killed at a random moment of the load, again and again;
// after each time the table is what was sent.
func TestLoadersKilledAtRandomMoments(t *testing.T) {
	const rows = 120_000 // a round's
	r := random(t)
	s := newSite(t, eventsManifest)
	s.exec(sentTable)
	e := &events{random: r, dir: s.dir}
	loaders := []*loader{s.load("loader-0", "proof/events"), s.load("loader-1", "proof/events")}
	for round := range *killsFlag {
		before := e.rows
		file, err := e.write(rows)
		if err != nil {
			t.Fatal(err)
		}
		s.sent(file)
		pushed := s.push("proof/events", file)
		victim, moment := r.IntN(2), before+1+r.Int64N(rows*3/4)
		s.await(ledger, moment)
		loaders[victim].kill()
		had := s.count(ledger) - before
		loaders[victim] = s.load(fmt.Sprintf("loader-%d", victim), "proof/events")
		if err := <-pushed; err != nil {
			t.Fatal(err)
		}
		s.await(loaded, e.rows)
		s.compare(fmt.Sprintf("kill %d", round+1), before)
		t.Logf("kill %2d: loader-%d with %d of this round's %d rows loaded; equal", round+1, victim, had, rows)
	}
	s.compare("at the end", 0)
}

// While files are pushed, loaders join one by one up to four, and leave again.
func TestLoadersComeAndGo(t *testing.T) {
	s := newSite(t, eventsManifest)
	s.exec(sentTable)
	e := &events{random: random(t), dir: s.dir}
	var files []string
	for range 12 {
		file, err := e.write(30_000)
		if err != nil {
			t.Fatal(err)
		}
		s.sent(file)
		files = append(files, file)
	}
	pushed := s.push("proof/events", files...)
	var loaders []*loader
	steps := int64(8)
	for step := range steps {
		if step < 4 {
			loaders = append(loaders, s.load(fmt.Sprintf("loader-%d", step), "proof/events"))
		} else if len(loaders) > 1 {
			loaders[0].drain()
			loaders = loaders[1:]
		}
		s.await(loaded, e.rows*(step+1)/(steps+1))
	}
	if err := <-pushed; err != nil {
		t.Fatal(err)
	}
	s.await(loaded, e.rows)
	s.compare("at the end", 0)
	loaders[0].drain()
}

// The same files read again after a rewind change nothing.
func TestRewind(t *testing.T) {
	s := newSite(t, eventsManifest)
	s.exec(sentTable)
	e := &events{random: random(t), dir: s.dir}
	file, err := e.write(20_000)
	if err != nil {
		t.Fatal(err)
	}
	s.sent(file)
	l := s.load("loader", "proof/events")
	if err := <-s.push("proof/events", file); err != nil {
		t.Fatal(err)
	}
	s.await(loaded, e.rows)
	s.run("rewind", "proof/events")
	batches := s.count("SELECT count(DISTINCT _batch_id) FROM public.events")
	s.await("SELECT coalesce(sum(next_offset), 0)::bigint FROM tallyman.positions WHERE era > 1", batches)
	s.compare("after the rewind", 0)
	l.drain()
}
