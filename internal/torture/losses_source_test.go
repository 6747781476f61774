package torture

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A source is killed with batches that it has accepted and not published.
func TestSourceKilledBeforeItPublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t, embedded(t))
	d := w.serve("web")
	w.load("loader", dataset)
	d.some()
	w.loadedAll()

	w.kafka.stop()
	d.some()
	d.kill()
	w.hurt()
	w.kafka.start()
	d.start()
	w.healed()
}

// A source's journal is replaced by an older copy of it. What it has published
// since is loaded; the next opening numbers its batches anew. A stream whose
// end was to be announced by the journal that is gone is retired by a person.
func TestJournalRestoredFromAnOlderCopy(t *testing.T) {
	t.Parallel()
	ends := []func(d *daemon){(*daemon).drain, (*daemon).kill}
	for i, name := range []string{"closed", "copied of a killed one", "killed", "killed twice"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, embedded(t))
			d := w.serve("web")
			w.load("loader", dataset)
			d.some()
			ends[i&1](d)
			backup := w.copyDir(d.dir)
			d.start()
			d.some()
			w.loadedAll()
			ends[i>>1](d)
			w.replaceDir(d.dir, backup)
			gone := w.open(i>>1, 2)
			d.start()
			d.some()
			for _, stream := range gone {
				w.run("source", "retire", dataset, "--source", "web", "--incarnation", stream, "--reason", "its journal is gone")
			}
			w.healed()
		})
	}
}

// open returns those of all streams of which nobody has announced an end, once
// it is so many.
func (w *world) open(want, all int) (streams []string) {
	w.t.Helper()
	w.connect()
	w.until(fmt.Sprintf("%d of %d streams are open", want, all), func() bool {
		rows, err := w.conn.Query(w.t.Context(), `SELECT incarnation::text FROM tallyman.streams WHERE state = 'open'`)
		if err == nil {
			streams, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			w.t.Fatal(err)
		}
		return len(streams) == want && w.count(`SELECT count(*) FROM tallyman.streams`) == int64(all)
	})
	return streams
}

// One file is pushed from two machines at the same time.
func TestOneFileFromTwoMachines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, embedded(t))
	w.load("loader-0", dataset)
	w.load("loader-1", dataset)
	for range 3 {
		file := w.file(30_000)
		ended := make(chan error)
		for _, name := range []string{"here", "there"} {
			machine := w.with("TALLYMAN_SOURCE_NAME="+name, "TALLYMAN_SOURCE_DIR="+w.dir+"/"+name)
			go func() {
				_, err := machine.try("push", dataset, file, "--manifest", w.manifest())
				ended <- err
			}()
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	w.healed()
}
