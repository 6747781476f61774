package postgres_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/sink/postgres"
)

// announced notes a stream with what was announced an hour ago, and just now.
func (w *warehouse) announced(state string, floor, then, now int64) uuid.UUID {
	w.t.Helper()
	stream := uuid.New()
	w.run(`INSERT INTO tallyman.streams (revision_id, incarnation, source, state, floor, announced, announced_at) VALUES ($1, $2, 'test', $3, $4, $5, now())`,
		w.revision.ID, pgUUID(stream), state, floor, now)
	w.run(`INSERT INTO tallyman.announcements (revision_id, incarnation, sequence, at, since)
		VALUES ($1, $2, $3, now(), now() - interval '1 hour'), ($1, $2, $4, now(), now()) ON CONFLICT DO NOTHING`, w.revision.ID, pgUUID(stream), then, now)
	return stream
}

// plant puts numbers of a stream into a table of plantNumber.
func (w *warehouse) plant(table int, stream uuid.UUID, numbers ...int64) {
	w.t.Helper()
	for _, n := range numbers {
		w.run(plantNumber[table], w.revision.ID, pgUUID(stream), n)
	}
}

func (w *warehouse) accounts(o postgres.AccountOptions) postgres.Accounts {
	w.t.Helper()
	o.Grace = time.Minute
	found, err := w.Accounts(w.t.Context(), w.revision, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

const (
	inLedger = iota
	discardedThere
	rejected
	expired
	badDigest
)

// Every announced batch counts once, and what was accounted for and is gone is
// found, however many numbers are counted at a time.
func TestAccounts(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			none := w.accounts(postgres.AccountOptions{})
			if diff := cmp.Diff(postgres.Accounts{}, none); diff != "" {
				t.Error(diff)
			}
			// 1-2 loaded, 3 discarded, 4 loaded and in quarantine, 5 in quarantine and
			// satisfied, 6 loaded and satisfied, 7-8 satisfied twice over, 9 in quarantine
			// twice, 10 can't be believed, 11 is on its way, 12 was never announced.
			good := w.announced("open", 4, 10, 11)
			w.plant(inLedger, good, 1, 2, 4, 6, 12)
			w.plant(discardedThere, good, 3)
			w.plant(rejected, good, 4, 5, 9)
			w.plant(expired, good, 9)
			w.plant(badDigest, good, 10)
			w.run(`INSERT INTO tallyman.satisfied VALUES ($1, $2, 5, 7, 'duplicate'), ($1, $2, 7, 8, 'forgotten')`, w.revision.ID, pgUUID(good))
			// The floor passed what is not there any more.
			lost := w.announced("closed", 8, 9, 9)
			w.plant(inLedger, lost, 1, 2, 5, 6, 8)
			// A journal that was cloned while it ran.
			cloned := w.announced("closed", 4, 4, 4)
			w.plant(inLedger, cloned, 1, 2, 2, 3, 3, 3, 4)
			// Nobody waits for what a retired stream lacks.
			retired := w.announced("retired", 0, 3, 3)

			want := []postgres.Account{
				{Source: "test", Incarnation: lost, State: "closed", Announced: 9, Loaded: 5, Missing: 1, Overdue: 1},
				{Source: "test", Incarnation: cloned, State: "closed", Announced: 4, Loaded: 4, Twice: 3},
				{Source: "test", Incarnation: good, State: "open", Announced: 11, Loaded: 4, Discarded: 1, Satisfied: 3, Quarantined: 1, Missing: 2, Overdue: 1},
				{Source: "test", Incarnation: retired, State: "retired", Announced: 3, Missing: 3},
			}
			for _, pieces := range []int64{1, 2, 3, 5, 0} {
				var done, total int64
				got := w.accounts(postgres.AccountOptions{PieceNumbers: pieces, Progress: func(d, of int64) { done, total = d, of }})
				if diff := cmp.Diff(want, got.Worst); diff != "" {
					t.Errorf("%d at a time (-want +got):\n%s", pieces, diff)
				}
				sum := postgres.Account{Announced: 27, Loaded: 13, Discarded: 1, Satisfied: 3, Quarantined: 1, Missing: 6, Overdue: 2, Twice: 3}
				if diff := cmp.Diff(sum, got.Total); diff != "" || got.Streams != 4 || got.Total.Unaccounted() != 3 || done != 27 || total != 27 {
					t.Errorf("%d at a time: %d streams, %d of %d, %s", pieces, got.Streams, done, total, diff)
				}
				var gone []int64
				for _, n := range got.FirstLost {
					for i := n.First; i <= n.Last; i++ {
						gone = append(gone, i)
					}
				}
				if !slices.Equal(gone, []int64{3, 4, 7}) || len(got.FirstTwice) != 2 || got.FirstTwice[0].First != 2 || len(got.FirstTwice[1].Batches) != 3 {
					t.Errorf("%d at a time: lost %v, twice %+v", pieces, gone, got.FirstTwice)
				}
			}
			if got := w.accounts(postgres.AccountOptions{Limit: 1}); len(got.Worst) != 1 || got.Worst[0].Incarnation != lost || got.Streams != 4 {
				t.Errorf("%+v", got)
			}
			w.run(`UPDATE tallyman.streams SET seen_at = now() - interval '2 days' WHERE incarnation <> $1`, pgUUID(good))
			if got := w.accounts(postgres.AccountOptions{Since: time.Now().Add(-24 * time.Hour)}); got.Streams != 1 || got.Worst[0].Incarnation != good {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Whatever the tables have, each number counts once: nothing is unaccounted for
// while nothing below the floor is gone.
func TestAccountsAddUp(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	rapid.Check(t, func(r *rapid.T) {
		number := rapid.Int64Range(1, 30)
		stream := w.announced("open", 0, number.Draw(r, "then"), 30)
		for range rapid.IntRange(0, 40).Draw(r, "numbers") {
			w.plant(rapid.IntRange(0, len(plantNumber)-1).Draw(r, "table"), stream, number.Draw(r, "number"))
		}
		for range rapid.IntRange(0, 3).Draw(r, "ranges") {
			first := number.Draw(r, "first")
			w.run(`INSERT INTO tallyman.satisfied VALUES ($1, $2, $3, $4, 'accepted') ON CONFLICT DO NOTHING`, w.revision.ID, pgUUID(stream), first, first+rapid.Int64Range(0, 9).Draw(r, "more"))
		}
		w.run(`UPDATE tallyman.streams SET floor = tallyman.reached(revision_id, incarnation, 0, announced) WHERE incarnation = $1`, pgUUID(stream))
		got := w.accounts(postgres.AccountOptions{PieceNumbers: number.Draw(r, "pieces"), Since: time.Now().Add(-time.Hour)})
		if got.Total.Unaccounted() != 0 || len(got.FirstLost) > 0 || got.Total.Announced != 30 {
			r.Fatalf("%+v", got)
		}
		w.run(`DELETE FROM tallyman.streams`)
	})
}

// Where the ledger has a horizon, what the floor passed and what is nowhere may
// have gone with an old partition; without one it is lost.
func TestAccountsBehindTheHorizon(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	stream := w.announced("open", 3, 5, 5)
	w.plant(inLedger, stream, 1, 2, 5)
	w.run("UPDATE tallyman.loaded_elements SET batch_time = $1 WHERE sequence <> 2", mid(0))
	if got := w.accounts(postgres.AccountOptions{}); got.Total.Unaccounted() != 1 || got.Total.Forgotten != 0 || len(got.FirstLost) != 1 || got.FirstLost[0].First != 3 {
		t.Errorf("%+v", got)
	}
	w.run("DELETE FROM tallyman.loaded_elements WHERE sequence = 1")
	if _, err := w.Init(t.Context(), postgres.InitOptions{Retention: &postgres.Retention{Days: 400}}); err != nil {
		t.Fatal(err)
	}
	// 5 is above the floor, so it is known that it was forgotten; 4 is missing.
	want := postgres.Account{Announced: 5, Loaded: 1, Satisfied: 3, Forgotten: 2, Missing: 1, Overdue: 1}
	if got := w.accounts(postgres.AccountOptions{}); got.Total != want || len(got.FirstLost) != 0 {
		t.Errorf("%+v", got)
	}
}
