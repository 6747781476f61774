package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
)

// jobSchedule is a world whose jobs and revisions are changed all the time.
type jobSchedule struct {
	*world
	random  *rand.Rand
	daemons []*daemon
	loaders []*loader
	pushed  []string
}

// jobFault is something that is done to jobs.
type jobFault struct {
	name   string
	strike func(x *jobSchedule)
}

func jobFaults() []jobFault {
	return []jobFault{
		{"five deploy it at once", func(x *jobSchedule) {
			var group sync.WaitGroup
			for range 5 {
				group.Go(func() { x.mayConflict("job", "deploy", "load", dataset) })
			}
			group.Wait()
		}},
		{"it is asked for with other options", func(x *jobSchedule) {
			x.mayConflict("job", "deploy", "load", dataset, "--option", "parallelism="+strconv.Itoa(x.random.IntN(3)))
		}},
		{"it is replaced", func(x *jobSchedule) {
			x.steady()
			x.run("job", "deploy", "load", dataset, "--option", "parallelism="+strconv.Itoa(x.random.IntN(3)), "--replace")
		}},
		{"it is stopped for a while", func(x *jobSchedule) {
			x.steady()
			x.stop(x.active())
			x.wait(2 * time.Second)
			x.deploy(x.active())
		}},
		{"a loader is killed", func(x *jobSchedule) {
			i := x.random.IntN(len(x.loaders))
			x.steady()
			x.loaders[i].kill()
			x.loaders[i] = x.load(x.loaders[i].name, "")
		}},
		{"a loader is frozen over a stop and a deployment", func(x *jobSchedule) {
			l := x.loaders[x.random.IntN(len(x.loaders))]
			x.steady()
			l.freeze()
			x.stop(x.active())
			x.deploy(x.active())
			x.wait(time.Second)
			l.thaw()
		}},
		{"it is loaded anew", func(x *jobSchedule) {
			x.steady()
			x.thin()
			x.run("resync", dataset, "--wait", "2m", "--replace", "--parallelism", strconv.Itoa(x.random.IntN(2)))
		}},
		{"a resync is killed", func(x *jobSchedule) {
			x.thin()
			ctx, cancel := context.WithTimeout(x.t.Context(), time.Duration(x.random.Int64N(int64(2*time.Second))))
			defer cancel()
			cmd := exec.CommandContext(ctx, x.binary, "resync", dataset, "--replace")
			cmd.Env = x.env
			_ = cmd.Run() // it may have been quicker
		}},
		{"readers are sent back", func(x *jobSchedule) {
			if standby := x.standby(); standby > 0 {
				x.deploy(standby)
				x.run("revision", "activate", dataset, strconv.FormatInt(standby, 10), "--wait", "2m")
			}
		}},
		{"a source is killed", func(x *jobSchedule) {
			d := x.daemons[x.random.IntN(len(x.daemons))]
			d.kill()
			d.start()
		}},
		{"the topic is read again", func(x *jobSchedule) { x.run("rewind", dataset) }},
		{"a file is pushed", func(x *jobSchedule) {
			file := x.file(3000)
			x.pushed = append(x.pushed, file)
			x.push(file)
		}},
	}
}

// mayConflict runs a deployment, which another one may be in the way of.
func (x *jobSchedule) mayConflict(args ...string) {
	if _, err := x.try(args...); err != nil && !strings.Contains(err.Error(), "with other options") && !strings.Contains(err.Error(), "is being stopped") {
		x.t.Error(err)
	}
}

// revisions returns those in a state.
func (x *jobSchedule) revisions(state string) []int64 {
	x.t.Helper()
	rows, err := x.conn.Query(x.t.Context(), "SELECT revision_id FROM tallyman.revisions WHERE state = $1 ORDER BY revision_id", state)
	if err != nil {
		x.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		x.t.Fatal(err)
	}
	return all
}

func (x *jobSchedule) active() int64 { return x.revisions("active")[0] }

// standby returns a revision that stands by; 0: there is none.
func (x *jobSchedule) standby() int64 {
	if all := x.revisions("standby"); len(all) > 0 {
		return all[x.random.IntN(len(all))]
	}
	return 0
}

// deploy has a revision loaded, with the options that loads have by default.
func (x *jobSchedule) deploy(revision int64) {
	x.t.Helper()
	x.run("job", "deploy", "load", dataset, "--revision", strconv.FormatInt(revision, 10), "--replace")
}

// stop stops every job about a revision.
func (x *jobSchedule) stop(revision int64) {
	x.t.Helper()
	rows, err := x.conn.Query(x.t.Context(), "SELECT job_id FROM tallyman.jobs WHERE revision_id = $1", revision)
	if err != nil {
		x.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		x.t.Fatal(err)
	}
	for _, id := range all {
		x.run("job", "stop", strconv.FormatInt(id, 10), "--wait", "2m")
	}
}

// thin drops a revision that stands by, if there are two.
func (x *jobSchedule) thin() {
	if all := x.revisions("standby"); len(all) > 1 {
		x.steady()
		x.stop(all[0])
		x.run("revision", "drop", dataset, strconv.FormatInt(all[0], 10))
	}
}

// steady waits until everybody that holds a lease on a load is a member of its
// group, and nobody else is: the embedded broker keeps for ever a member that ends
// before it was one. Kafka does not.
func (x *jobSchedule) steady() {
	x.t.Helper()
	x.until("the members of loads are those of their groups", func() bool {
		rows, err := x.conn.Query(x.t.Context(), `SELECT revision_id, (SELECT count(*) FROM tallyman.job_members m WHERE (m.job_id, m.epoch) = (j.job_id, s.epoch) AND lease_until > now())
			FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id) WHERE kind = 'load' AND status IN ('scheduled', 'running')`)
		if err != nil {
			x.t.Fatal(err)
		}
		var revision, leases int64
		all := map[int64]int64{}
		if _, err := pgx.ForEachRow(rows, []any{&revision, &leases}, func() error { all[revision] = leases; return nil }); err != nil {
			x.t.Fatal(err)
		}
		client, err := x.kafka.client()
		if err != nil {
			x.t.Fatal(err)
		}
		defer client.Close()
		for revision, leases := range all {
			n, state, err := membersOf(x.t.Context(), client, fmt.Sprintf("tallyman.proof.events.r%d", revision))
			if err != nil || state != "Stable" || n == 0 || int64(n) != leases {
				return false
			}
		}
		return true
	})
}

// wait lets things go on for a random while.
func (x *jobSchedule) wait(most time.Duration) {
	timer := time.NewTimer(time.Duration(x.random.Int64N(int64(most))))
	<-timer.C
}

// Jobs are deployed, stopped, replaced, and datasets loaded anew, swapped, swapped
// back and dropped at random moments, with SIGKILLs and frozen loaders in between,
// while two sources take rows. What readers see in the end is everything that was
// accepted, once, and so is every table that stands by.
func TestRandomScheduleOfJobs(t *testing.T) {
	t.Parallel()
	r := random(t)
	w := newWorldAt(t, embedded(t), sandboxtest.Postgres(t, "18"), rand.New(rand.NewPCG(r.Uint64(), r.Uint64())))
	x := &jobSchedule{world: w, random: r}
	x.connect()
	x.deploy(x.active())
	var stops []func()
	for i := range 2 {
		d := x.serve(fmt.Sprint("web-", i))
		x.daemons = append(x.daemons, d)
		x.loaders = append(x.loaders, x.load(fmt.Sprint("loader-", i), ""))
		stops = append(stops, d.keep())
	}
	faults := jobFaults()
	for began := time.Now(); time.Since(began) < *scheduleFlag && !t.Failed(); {
		f := faults[x.random.IntN(len(faults))]
		t.Logf("%4.1f s: %s", time.Since(began).Seconds(), f.name)
		f.strike(x)
		x.wait(time.Second)
	}
	for _, stop := range stops {
		stop()
	}
	for _, file := range x.pushed {
		x.push(file)
	}
	x.deploy(x.active())
	x.healed()
	for _, revision := range x.revisions("standby") {
		x.deploy(revision)
		var table string
		if err := x.conn.QueryRow(t.Context(), "SELECT physical_table FROM tallyman.revisions WHERE revision_id = $1", revision).Scan(&table); err != nil {
			t.Fatal(err)
		}
		x.none(strings.ReplaceAll(lostRows, "public.events", "public."+table), "rows are not in a table that stands by")
		if n := x.count(strings.ReplaceAll(extraRows, "public.events", "public."+table)); n != 0 {
			t.Errorf("%d rows too many in %s", n, table)
		}
	}
	t.Logf("%d files are in the table, once; revisions: %d active, %v stand by, %d dropped", len(x.files.names), x.active(), x.revisions("standby"), len(x.revisions("retired")))
}
