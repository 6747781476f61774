package torture

import "testing"

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
// since is loaded; the next opening numbers its batches anew.
func TestJournalRestoredFromAnOlderCopy(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(d *daemon){"closed": (*daemon).drain, "killed": (*daemon).kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, embedded(t))
			d := w.serve("web")
			w.load("loader", dataset)
			d.some()
			end(d)
			backup := w.copyDir(d.dir)
			d.start()
			d.some()
			w.loadedAll()
			d.drain()
			w.replaceDir(d.dir, backup)
			d.start()
			d.some()
			w.healed()
		})
	}
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
