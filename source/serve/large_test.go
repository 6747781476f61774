package serve

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/schema/batch"
)

// zeros is a body without an end that says how much of it was read.
type zeros struct{ read *atomic.Int64 }

// Read implements io.Reader.
func (z zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	z.read.Add(int64(len(p)))
	return len(p), nil
}

// Bodies of a gigabyte are refused with 413, whether they say how long they are
// or not, and cost no more memory than their limit.
func TestGigabytes(t *testing.T) {
	r := newRig(t, func(s *setup) { s.MaxBody, s.Memory = 1<<20, 16<<20 })
	before := heap()
	var peak atomic.Int64
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				peak.Store(max(peak.Load(), heap()))
			case <-done:
				return
			}
		}
	})
	var sent atomic.Int64
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+orders+"/rows", io.LimitReader(zeros{&sent}, 1<<30))
			if err != nil {
				t.Error(err)
				return
			}
			request.Header.Set("Content-Type", batch.NDJSON)
			if i%2 == 0 {
				request.ContentLength = 1 << 30
			}
			response, err := r.client.Do(request)
			if err != nil {
				return // the daemon hung up while the client was still sending
			}
			defer func() { _ = response.Body.Close() }()
			if response.StatusCode != http.StatusRequestEntityTooLarge && response.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("answered %s", response.Status)
			}
		})
	}
	group.Wait()
	close(done)
	watch.Wait()
	if grown := peak.Load() - before; grown > 64<<20 {
		t.Errorf("memory rose by %d MiB", grown>>20)
	}
	if sent.Load() > 256<<20 {
		t.Errorf("the daemon read up to %d MiB of what it refuses", sent.Load()>>20)
	}
	accepted[acceptedRows](r, post("/rows", `{"n":1}`))
}

// heap returns the bytes in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// A gigabyte that says how long it is is refused before any of it is read.
func TestGigabyteIsRefusedUnread(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	conn := r.dial()
	_, err := fmt.Fprintf(conn, "POST %s/rows HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", orders, batch.NDJSON, 1<<30)
	fatal(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	fatal(t, err)
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %s", response.Status)
	}
}

// dial opens a bare connection to the daemon.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	fatal(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	fatal(r.t, conn.SetDeadline(time.Now().Add(limit)))
	return conn
}

// A client that doesn't get to the end of its headers is hung up on.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.ReadTimeout = 200 * time.Millisecond })
	conn := r.dial()
	_, err := fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	fatal(t, err)
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the daemon didn't hang up: %v", err)
	}
}

// Headers without end are refused.
func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	got := r.do(post("/rows", `{"n":1}`, "X-Large", strings.Repeat("x", 64<<10)))
	if got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %d", got.status)
	}
}
