package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	manifest = `
dataset: shop/orders
topic: orders
columns:
  - {name: n, type: int64}
  - {name: note, type: text, nullable: true}
`
	orders = "/v1/datasets/shop/orders"
	// limit bounds every wait of a test.
	limit = 20 * time.Second
)

// rig is a running daemon with one source.
type rig struct {
	t      testing.TB
	broker *sandbox.Broker
	source *source.Source
	daemon *Daemon
	url    string
	client *http.Client
	stop   context.CancelFunc // ends the daemon
	ended  chan error         // what Run returned
}

// setup is what tests change.
type setup struct {
	Config
	source func(*source.Config)
}

// newRig starts a daemon; change may be nil.
func newRig(t testing.TB, change func(*setup)) *rig {
	t.Helper()
	m, err := schema.ParseManifest([]byte(manifest))
	fatal(t, err)
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{DataDir: t.TempDir()})
	fatal(t, broker.CreateTopic(m.Topic, 2, nil))
	with := setup{Config: Config{Listen: "127.0.0.1:0", Logger: quiet()}, source: func(*source.Config) {}}
	if change != nil {
		change(&with)
	}
	sc := source.Config{Manifest: m, Kafka: source.Kafka{Brokers: broker.Addrs()}, Dir: t.TempDir(), Name: "shop-1", Logger: quiet()}
	with.source(&sc)
	s, err := source.Open(t.Context(), sc)
	fatal(t, err)
	t.Cleanup(func() { fatal(t, s.Close()) })
	with.Sources = []*source.Source{s}
	d, err := New(with.Config)
	fatal(t, err)
	l, err := d.Listen()
	fatal(t, err)
	r := &rig{t: t, broker: broker, source: s, daemon: d, url: l.URL(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}, ended: make(chan error, 1)}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- l.Run(ctx); close(r.ended) }()
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		stop()
		fatal(t, <-r.ended)
	})
	return r
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask is a request in the making.
type ask struct {
	method, path string
	header       http.Header
	body         io.Reader
}

// post posts NDJSON unless the headers, of names and values in turns, say otherwise.
func post(path, body string, headers ...string) ask {
	a := ask{method: http.MethodPost, path: orders + path, header: http.Header{"Content-Type": {batch.NDJSON}}, body: strings.NewReader(body)}
	for i := 0; i < len(headers); i += 2 {
		if a.header.Del(headers[i]); headers[i+1] != "" {
			a.header.Set(headers[i], headers[i+1])
		}
	}
	return a
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request.
func (r *rig) do(a ask) answer {
	r.t.Helper()
	got, err := r.try(a)
	fatal(r.t, err)
	return got
}

func (r *rig) try(a ask) (answer, error) {
	request, err := http.NewRequestWithContext(r.t.Context(), a.method, r.url+a.path, a.body)
	if err != nil {
		return answer{}, err
	}
	request.Header = a.header
	response, err := r.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	return answer{response.StatusCode, response.Header, body}, err
}

// accepted makes a request that must be answered with 202.
func accepted[T any](r *rig, a ask) (v T) {
	r.t.Helper()
	got := r.do(a)
	if got.status != http.StatusAccepted || got.header.Get("Content-Type") != "application/json" {
		r.t.Fatalf("%s answers %d %s", a.path, got.status, got.body)
	}
	parse(r.t, got.body, &v)
	return v
}

// parse reads JSON that has no other members than v.
func parse(t testing.TB, text []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// refused checks that an answer is a problem of a kind, documented for the route.
func (r *rig) refused(got answer, want kind) problem {
	r.t.Helper()
	var p problem
	if got.header.Get("Content-Type") != problemJSON {
		r.t.Errorf("want the problem %s, got %d %s", want, got.status, got.body)
		return p
	}
	parse(r.t, got.body, &p)
	if p.Type != typePrefix+string(want) || p.Status != got.status || got.status != facts()[want].status || p.Title == "" || p.Detail == "" {
		r.t.Errorf("want the problem %s, got %d %s", want, got.status, got.body)
	}
	return p
}

// await waits until something is so.
func (r *rig) await(so func() bool) {
	r.t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	late := time.After(limit)
	for !so() {
		select {
		case <-look.C:
		case <-late:
			r.t.Fatal("what is waited for does not come")
		}
	}
}

// rows returns everything on the topic, each row as "n note".
func (r *rig) rows() []string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	fatal(r.t, r.source.Flush(ctx))
	var all []string
	for _, record := range sandboxtest.Records(r.t, r.broker, "orders") {
		value := record.Value
		for len(value) > 0 {
			n, note := int64(0), "NULL"
			for i := range 8 {
				n = n<<8 | int64(value[6+i])
			}
			value = value[14:]
			size := int32(value[0])<<24 | int32(value[1])<<16 | int32(value[2])<<8 | int32(value[3])
			value = value[4:]
			if size >= 0 {
				note = string(value[:size])
				value = value[size:]
			}
			value = value[20:]
			all = append(all, fmt.Sprint(n, " ", note))
		}
	}
	return all
}
