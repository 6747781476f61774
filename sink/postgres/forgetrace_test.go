package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// Loaders bring the same batches of many months again and again, in any order,
// while the ledger forgets a month after another. None loads twice, and none that
// has a number is missing: it was loaded, or it is in quarantine.
func TestRetentionRace(t *testing.T) {
	t.Parallel()
	const months, each, rounds = 24, 8, 12
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("some batch loads never"))
			defer cancel()
			dsn := sandboxtest.Postgres(t, version)
			mustInit(t, bare(t, dsn, postgres.Config{}), mid(months/2)) // half of them are in the first partition
			w := open(t, dsn, events, postgres.Config{})
			stream, seed := uuid.New(), rand.Uint64()
			t.Logf("seed %d", seed)
			var all []sink.Element
			for n := range months * each {
				e := w.element(idAt(mid(n/each)), w.partition(0), 0, []any{int64(n), "x"})
				if n%4 > 0 { // some are of a producer that numbers nothing
					e = renumber(e, stream, uint64(n+1))
				}
				all = append(all, e)
			}
			var group errgroup.Group
			for loader := range 3 {
				b := &bringer{w: w, c: w.committer(), p: w.partition(int32(loader + 1)), all: all, random: rand.New(rand.NewPCG(seed, uint64(loader)))}
				group.Go(func() error { return b.bring(ctx, rounds) })
			}
			group.Go(func() error {
				for n := range months + 1 {
					o := postgres.InitOptions{Retention: &postgres.Retention{Months: 3}, Now: func() time.Time { return mid(n + 3) }}
					if _, err := w.Init(ctx, o); err != nil {
						return err
					}
				}
				return nil
			})
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			if n := w.count("SELECT count(*) FROM (SELECT FROM public.events GROUP BY _batch_id HAVING count(*) > 1) twice"); n != 0 {
				t.Errorf("%d batches were loaded twice", n)
			}
			const lost = `SELECT count(*) FROM tallyman.holes($1, $2::text::uuid, 0, $3) h, generate_series(h.first, h.last) n WHERE (n - 1) % 4 > 0`
			if n := w.count(lost, w.revision.ID, stream.String(), months*each); n != 0 {
				t.Errorf("%d batches are known to nobody", n)
			}
			// What is in quarantine as expired was not loaded, as far as it has a number.
			const both = `SELECT count(*) FROM tallyman.quarantine q WHERE q.state = 'open' AND q.sequence IS NOT NULL AND EXISTS (SELECT FROM public.events e WHERE e._batch_id = q.unique_id)`
			if n := w.count(both); n != 0 {
				t.Errorf("%d batches are loaded and in quarantine", n)
			}
			t.Logf("%d loaded, %d expired", w.count("SELECT count(*) FROM public.events"), w.count("SELECT count(*) FROM tallyman.quarantine WHERE state = 'open'"))
		})
	}
}

// bringer is a loader that reads the same elements again and again.
type bringer struct {
	w      *warehouse
	c      sink.Committer
	p      sink.Position
	all    []sink.Element
	random *rand.Rand
}

// bring commits all elements in groups, in another order each round. What waits
// for a partition is tried again.
func (b *bringer) bring(ctx context.Context, rounds int) error {
	for range rounds {
		order := b.random.Perm(len(b.all))
		for some := range slices.Chunk(order, 16) {
			g := b.w.group(b.p, b.p.Next+int64(len(some)))
			for i, n := range some {
				e := b.all[n]
				e.Partition, e.Offset = b.p.Partition, b.p.Next+int64(i)
				g.Elements = append(g.Elements, e)
			}
			for {
				_, err := b.c.Commit(ctx, g)
				if err == nil {
					break
				}
				if sink.ClassOf(err) != sink.Retryable || ctx.Err() != nil {
					return fmt.Errorf("commit: %w", err)
				}
			}
			b.p.Next += int64(len(some))
		}
	}
	return nil
}
