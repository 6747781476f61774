package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/schema/batch"
)

// later returns an encoding as newEncoding does, and what tells it what it yet has
// to know.
func later(t *testing.T, format Format, text string, room int) (e *encoding, know func()) {
	t.Helper()
	knowing := newEncoding(t, manifest(t, pairs), format, sha256.Sum256([]byte(text)))
	e = &encoding{
		manifest: knowing.manifest, hash: knowing.hash, codec: knowing.codec, format: format,
		known: make(chan struct{}), room: room,
	}
	return e, func() { e.know(knowing.content, knowing.journal) }
}

// keptBytes waits until the rows that are kept are so many bytes.
func keptBytes(t *testing.T, e *encoding, enough func(int) bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		kept := e.kept
		e.mu.Unlock()
		if enough(kept) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are kept", kept)
		}
	}
}

// A file has the same batches, whether ids were known before its rows were
// encoded or came later, with room for some of the rows, for all or for none.
func TestEarlyRowsHaveTheSameBatches(t *testing.T) {
	t.Parallel()
	for format, text := range map[Format]string{
		CSV:    lines(20_500) + "-1,\n-2,\"a\n\"\"b\"\"\"\n",
		NDJSON: strings.Repeat(`{"n":1}`+"\n"+`{"n":2,"t":"x"}`+"\n", 10_250) + `{"n":3,"t":null}`,
	} {
		want, total, err := encodeText(t, manifest(t, pairs), "", format, text)
		if err != nil || len(want) != 21 {
			t.Fatalf("%d batches, %v", len(want), err)
		}
		for room, enough := range map[int]func(int) bool{
			0:       func(int) bool { return true },
			100_000: func(kept int) bool { return kept > 0 },
			1 << 30: func(kept int) bool { return kept > 20_000*30 },
		} {
			e, know := later(t, format, text, room)
			ended := make(chan error, 1)
			var got totals
			go func() {
				var err error
				got, err = e.run(t.Context(), strings.NewReader(text))
				ended <- err
			}()
			keptBytes(t, e, enough)
			know()
			if err := <-ended; err != nil || got != total {
				t.Fatalf("%s with room for %d: %+v, want %+v: %v", format, room, got, total, err)
			}
			if e.kept > room {
				t.Errorf("%s: %d bytes kept, with room for %d", format, e.kept, room)
			}
			found := map[uuid.UUID]*batch.Batch{}
			for r, err := range e.journal.All() {
				if err != nil {
					t.Fatal(err)
				}
				found[r.Batch.ID] = r.Batch
			}
			if len(found) != len(want) {
				t.Errorf("%s with room for %d: %d batches, want %d", format, room, len(found), len(want))
			}
			for _, b := range want {
				if same := found[b.ID]; same == nil || same.Rows != b.Rows || !bytes.Equal(same.Value, b.Value) {
					t.Fatalf("%s with room for %d: batch %s, of %d rows, is another", format, room, b.ID, b.Rows)
				}
			}
		}
	}
}

// A fault that is found early is the first in the file, and told once it is known
// what the file is; who does not want to know any more is not waited for.
func TestEarlyFaults(t *testing.T) {
	t.Parallel()
	text := lines(5_500) + "x,1\n" + strings.Repeat("1,a\n", 5_000) + "y,2\n"
	e, know := later(t, CSV, text, 1<<30)
	ended := make(chan error, 1)
	go func() {
		_, err := e.run(t.Context(), strings.NewReader(text))
		ended <- err
	}()
	keptBytes(t, e, func(kept int) bool { return kept > 0 })
	know()
	var at *RowError
	if err := <-ended; !errors.As(err, &at) || at.Line != 5_502 || at.Column != "n" {
		t.Errorf("%v", err)
	}

	for _, room := range []int{0, 1 << 30} {
		e, _ = later(t, CSV, text, room)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := e.run(ctx, strings.NewReader(lines(9_000)))
			ended <- err
		}()
		time.Sleep(20 * time.Millisecond)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("with room for %d: %v", room, err)
		}
	}
}
