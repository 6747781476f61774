package admin_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tallyman/internal/admin"
)

// TestProbesAndMetrics asks every page of a running server.
func TestProbesAndMetrics(t *testing.T) {
	defer goleak.VerifyNone(t)
	reg := prometheus.NewRegistry()
	rows := prometheus.NewCounter(prometheus.CounterOpts{Name: "tallyman_rows_total", Help: "Rows."})
	reg.MustRegister(rows)
	rows.Add(42)
	var (
		ready error
		note  string
	)
	s, err := admin.Listen(admin.Config{Listen: "127.0.0.1:0", Gatherer: reg, Ready: func() (string, error) { return note, ready }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := client.Get("http://" + s.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	want := func(path string, code int, text string) {
		t.Helper()
		if gotCode, got := get(path); gotCode != code || !strings.Contains(got, text) {
			t.Errorf("%s: %d %q, want %d with %q", path, gotCode, got, code, text)
		}
	}
	want("/livez", 200, "ok")
	want("/readyz", 200, "ok")
	note = "ads/clicks: job 7 is stopped"
	want("/readyz", 200, "ok\nads/clicks: job 7 is stopped\n")
	want("/metrics", 200, "tallyman_rows_total 42")
	ready = errors.New("ads/conversions is stopped (table_missing)")
	want("/readyz", 503, "table_missing")
	want("/livez", 200, "ok")
	want("/other", 404, "")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAddressInUse is told when listening, before any work starts.
func TestAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, err = admin.Listen(admin.Config{Listen: taken.Addr().String(), Gatherer: prometheus.NewRegistry()})
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("error %v does not name the address", err)
	}
}
