package source

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// childDir is set in the environment of a test binary that is to be a process
// of its own with a source in that directory.
const childDir = "TALLYMAN_SOURCE_CHILD"

// child is what that process does: it appends row after row with no Kafka to be
// seen, says so after each, and ends only when it is killed.
func child(dir string) error {
	m, err := schema.ParseManifest([]byte(manifest))
	if err != nil {
		return err
	}
	ctx := context.Background()
	s, err := Open(ctx, Config{
		Manifest: m, Kafka: Kafka{Brokers: []string{"127.0.0.1:1"}}, Dir: dir, Name: "shop-1", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	for n := int64(0); ; n++ {
		rows := [][]any{{uuid.UUID{}, n, nil}}
		if n%2 == 0 {
			err = s.Append(ctx, rows)
		} else {
			err = s.AppendBatch(ctx, batch.NewID(), rows)
		}
		if err != nil {
			return err
		}
		fmt.Println("accepted") // one write, straight into the pipe
	}
}

// What was accepted before the process is killed is published by the next
// opening, once, in the stream of the one that was killed.
func TestOutlivesAKilledProcess(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(r.context(), self)
	cmd.Env = append(os.Environ(), childDir+"="+r.dir)
	out, err := cmd.StdoutPipe()
	if err = errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for said := bufio.NewScanner(out); said.Scan(); {
		if said.Text() != "accepted" {
			t.Fatalf("the process says %q", said.Text())
		}
		if accepted++; accepted == 50 {
			noError(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil || accepted < 50 {
		t.Fatalf("the process ended with %v after %d rows", err, accepted)
	}

	s := r.open(nil)
	r.flush(s)
	all := r.read()
	// One more may be durable whose answer nobody heard.
	if len(all) != accepted && len(all) != accepted+1 {
		t.Errorf("%d batches are published of %d that were accepted", len(all), accepted)
	}
	var want [][][]any
	for n := range int64(len(all)) {
		want = append(want, [][]any{{uuid.UUID{}, n, nil}})
		if all[n].Incarnation == s.journal.Incarnation() || all[n].Incarnation != all[0].Incarnation {
			t.Errorf("batch %d is of stream %s", n, all[n].Incarnation)
		}
	}
	r.wantTopic(want...)
}

// Callers that append at once, before a broker is there and after: every
// call's rows are published once, and together.
func TestManyCallersThroughAnOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(func(c *Config) { c.MaxRows = 7 })
	noError(t, r.broker.Stop())
	const callers, calls, each = 8, 20, 3
	var mu sync.Mutex
	want := map[string]int{} // rows by their note
	var group errgroup.Group
	for caller := range callers {
		group.Go(func() error {
			for call := range calls {
				note := fmt.Sprintf("caller %d, call %d", caller, call)
				all := orders(each, note)
				var err error
				if caller%2 == 0 {
					err = s.Append(t.Context(), all)
				} else { // twice, as after an answer that was lost
					id := batch.NewID()
					err = errors.Join(s.AppendBatch(t.Context(), id, all), s.AppendBatch(t.Context(), id, all))
				}
				if err != nil {
					return err
				}
				mu.Lock()
				want[note] = each
				mu.Unlock()
			}
			return nil
		})
	}
	noError(t, r.broker.Start(t.Context()))
	noError(t, group.Wait())
	r.flush(s)
	all, got := r.read(), map[string]int{}
	for _, b := range all {
		notes := regexp.MustCompile(`caller \d+, call \d+`).FindAllString(string(b.Value), -1)
		if b.Rows%each != 0 || len(notes) != b.Rows {
			t.Errorf("a batch has %d rows with %d notes: a call of %d was torn apart", b.Rows, len(notes), each)
		}
		for _, note := range notes {
			got[note]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows by call (-want +got):\n%s", diff)
	}
	n, err := s.Republish(t.Context())
	if err != nil || n != len(all) {
		t.Errorf("published again: %d, %v, want %d", n, err, len(all))
	}
}

// An answer that is not waited for is unknown. Here the rows are durable all the same.
func TestInterruptedAppendIsUnknown(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(func(c *Config) { c.Linger = time.Hour })
	expectCompany(s)
	ctx, interrupt := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	joined, err := placed(s, orders(1, "")) // the call is in the open batch, as Append leaves it
	noError(t, err)
	go func() { answer <- joined[0].batch.wait(ctx) }()
	interrupt()
	if err := <-answer; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not known") {
		t.Errorf("append says %v, want that it is not known", err)
	}
	r.flush(s)
	r.wantTopic(orders(1, ""))
}

// The largest row that is accepted is one that the broker takes, even if it
// can't be compressed, and one byte more is refused.
func TestLargestRow(t *testing.T) {
	t.Parallel()
	const most = 20_000
	r := newRig(t).topic(map[string]string{"max.message.bytes": fmt.Sprint(most)})
	s := r.open(nil)
	const head = 2 + (4 + 16) + (4 + 8) + 4 + (4 + 16) // of a row, with its batch id: all but the text
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, most-envelopeBytes-head)
	for i := range text {
		text[i] = byte(' ' + random.IntN(95))
	}
	noError(t, s.AppendBatch(t.Context(), batch.NewID(), [][]any{order(1, string(text))}))
	if err := s.AppendBatch(t.Context(), batch.NewID(), [][]any{order(1, string(text)+"x")}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a byte more: %v, want that it is too large", err)
	}
	r.flush(s)
	r.wantTopic([][]any{order(1, string(text))})
}
