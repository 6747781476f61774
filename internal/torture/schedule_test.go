package torture

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tallyman/internal/sandbox/sandboxtest"
)

var scheduleFlag = flag.Duration("schedule", 45*time.Second, "how long the random schedule goes on hurting")

// schedule is a world under load, and what can happen to it.
type schedule struct {
	*world
	faults    []fault
	random    *rand.Rand
	warehouse *warehouse
	backup    string // of the warehouse, from some time before
	daemons   []*daemon
	loaders   []*loader
	pushed    []string // files
}

// fault is something that can happen. What it stops it starts again.
type fault struct {
	name   string
	strike func(x *schedule)
}

// faults are everything that the other tests do one by one, and the ordinary
// troubles that it meets with.
func faults() []fault {
	return []fault{
		{"the topic is deleted and made again", func(x *schedule) {
			x.settled()
			x.kafka.deleteTopic(topic)
			x.apply()
		}},
		{"retention removes everything", func(x *schedule) { x.kafka.expire(topic) }},
		{"retention removes what a frozen loader did not read", func(x *schedule) {
			l := x.loader()
			l.freeze()
			x.wait(time.Second)
			x.kafka.expire(topic)
			l.thaw()
		}},
		{"the broker is away", func(x *schedule) {
			x.kafka.stop()
			x.wait(time.Second)
			x.kafka.start()
		}},
		{"the broker loses its disk", func(x *schedule) {
			x.settled()
			x.kafka.loseDisk()
			x.apply()
		}},
		{"positions are moved to the end", func(x *schedule) {
			x.connect()
			for partition, end := range x.kafka.ends(topic) {
				x.exec(`UPDATE tallyman.positions SET next_offset = $2 WHERE partition = $1`, partition, end)
			}
		}},
		{"the topic is read again", func(x *schedule) { x.run("rewind", dataset) }},
		{"a loader is killed", func(x *schedule) {
			i := x.random.IntN(len(x.loaders))
			x.settled()
			x.loaders[i].kill()
			x.loaders[i] = x.load(x.loaders[i].name, dataset)
		}},
		{"all loaders are off for a while", func(x *schedule) { x.off(2 * time.Second) }},
		{"a source is killed", func(x *schedule) {
			d := x.daemon()
			d.kill()
			d.start()
		}},
		{"a source is killed while the broker is away", func(x *schedule) {
			d := x.daemon()
			x.kafka.stop()
			x.wait(500 * time.Millisecond)
			d.kill()
			x.kafka.start()
			d.start()
		}},
		{"a source is closed and opened", func(x *schedule) {
			d := x.daemon()
			d.drain()
			d.start()
		}},
		{"a file is pushed", func(x *schedule) {
			file := x.file(3000)
			x.pushed = append(x.pushed, file)
			x.push(file)
		}},
		{"the warehouse crashes", func(x *schedule) {
			if err := x.warehouse.server.Crash(); err != nil {
				x.t.Fatal(err)
			}
			x.wait(time.Second)
			if err := x.warehouse.server.Start(x.t.Context()); err != nil {
				x.t.Fatal(err)
			}
		}},
	}
}

// steps back are what only sources that keep everything can make good.
func stepsBack() []fault {
	return []fault{
		{"the warehouse is backed up", func(x *schedule) { x.backup = x.warehouse.backup() }},
		{"the warehouse is restored from its last backup", func(x *schedule) { x.warehouse.restore(x.backup) }},
	}
}

// settled waits until the loaders, and nobody else, are members of their group. One
// that starts when there is no topic ends, and it would be for whoever supervises
// it to start it again. And the embedded broker keeps a member for ever that ends
// before it was one, and its partitions with it; Kafka does not.
func (x *schedule) settled() {
	x.t.Helper()
	x.until("the loaders are the members of their group", func() bool {
		client, err := x.kafka.client()
		if err != nil {
			x.t.Fatal(err)
		}
		defer client.Close()
		n, state, err := membersOf(x.t.Context(), client, group)
		return err == nil && state == "Stable" && n == len(x.loaders)
	})
}

// off ends all loaders, and starts them again after a random while.
func (x *schedule) off(most time.Duration) {
	x.t.Helper()
	x.settled()
	for _, l := range x.loaders {
		l.drain()
	}
	x.wait(most)
	for i, l := range x.loaders {
		x.loaders[i] = x.load(l.name, dataset)
	}
}

func (x *schedule) loader() *loader { return x.loaders[x.random.IntN(len(x.loaders))] }
func (x *schedule) daemon() *daemon { return x.daemons[x.random.IntN(len(x.daemons))] }

// wait lets things go on for a random while.
func (x *schedule) wait(most time.Duration) {
	timer := time.NewTimer(time.Duration(x.random.Int64N(int64(most))))
	<-timer.C
}

// Anything of the above happens at random moments, one after another, while two
// sources take rows and two loaders load them. In the end files are pushed again,
// and everything that was accepted is in the table, once.
func TestRandomSchedule(t *testing.T) {
	t.Parallel()
	p := newWarehouse(t)
	r := random(t)
	// Rows are made by both sources at once, so not from the schedule's choices.
	w := newWorldAt(t, embedded(t), p.dsn(), rand.New(rand.NewPCG(r.Uint64(), r.Uint64())))
	runSchedule(t, &schedule{world: w, random: r, warehouse: p, backup: p.backup(), faults: append(faults(), stepsBack()...)})
}

// The same with sources that keep nothing that the warehouse has confirmed: what
// they let go is never missed again.
func TestRandomScheduleWithTrimming(t *testing.T) {
	t.Parallel()
	p := &warehouse{t: t, server: sandboxtest.Server(t, "18")}
	r := random(t)
	w := newWorldAt(t, embedded(t), p.dsn(), rand.New(rand.NewPCG(r.Uint64(), r.Uint64())))
	x := &schedule{random: r, warehouse: p, faults: faults(), world: w.with("TALLYMAN_SERVE_TARGETS=default", "TALLYMAN_SERVE_RETENTION=1s")}
	runSchedule(t, x)
	for _, d := range x.daemons {
		d.drain()
		held, gone := d.batches()
		t.Logf("%s holds %d batches and has let %d go", d.name, held, gone)
		if gone < held {
			t.Errorf("%s has let go of less than half, so nothing is proved", d.name)
		}
	}
}

// batches returns how many batches a daemon's journal holds, and how many it held.
func (d *daemon) batches() (held, gone int) {
	d.world.t.Helper()
	var list struct {
		Streams []struct{ Batches, Trimmed int }
	}
	if err := json.Unmarshal([]byte(d.world.run("source", "journal", "list", "--journal", d.dir, "--output", "json")), &list); err != nil {
		d.world.t.Fatal(err)
	}
	for _, s := range list.Streams {
		held, gone = held+s.Batches, gone+s.Trimmed
	}
	return held, gone
}

func runSchedule(t *testing.T, x *schedule) {
	var stops []func()
	for i := range 2 {
		d := x.serve(fmt.Sprint("web-", i))
		x.daemons = append(x.daemons, d)
		x.loaders = append(x.loaders, x.load(fmt.Sprint("loader-", i), dataset))
		stops = append(stops, d.keep())
	}
	for began := time.Now(); time.Since(began) < *scheduleFlag && !t.Failed(); {
		f := x.faults[x.random.IntN(len(x.faults))]
		t.Logf("%4.1f s: %s", time.Since(began).Seconds(), f.name)
		f.strike(x)
		x.wait(2 * time.Second)
	}
	for _, stop := range stops {
		stop()
	}
	for _, file := range x.pushed {
		x.push(file)
	}
	x.healed()
	t.Logf("%d files are in the table, once", len(x.files.names))
}
