package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
)

// demoOf runs a demo that prints JSON.
func demoOf(t *testing.T, args ...string) (demoResult, int, string) {
	t.Helper()
	p, stdout, stderr := demoProgram()
	status := p.run(t.Context(), append([]string{"demo", "-o", "json"}, args...))
	var r demoResult
	if stdout.Len() > 0 {
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
	}
	return r, status, stderr.String()
}

// A file of the user's is loaded and compared, whatever is odd about it.
func TestDemoFile(t *testing.T) {
	const odd = "\ufeffid,\"two\nlines\",empty,at,\"say \"\"hi\"\"\",j\r\n" +
		"1,\"a\nb\",\"\",2024-02-29T12:00:00Z,NA,\"{\"\"a\"\": [1 ]}\"\r\n" +
		"1,\"a\nb\",\"\",2024-02-29T12:00:00Z,NA,\"{\"\"a\"\": [1 ]}\"\r\n" +
		"-3,\"tab\there\",,2024-02-29 12:00:00.5+01:00,\"NA\",[]\r\n"
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write([]byte(`{"a":1.50,"b":"x\ty\\N","c":{"d": [1, 2]},"e":["a, \"b\"","\\",null,""],"f":[1, 2],"g":"2024-02-29","h":"12:30:00.5","i":"2024-02-29T12:30:00","k":1e300}` + "\n" +
		`{"b":null,"a":-12345678901234567890,"c":"\u00fc","e":[],"f":[null],"k":2}`)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		text string
		rows int64
		args []string
	}{
		"odd.csv":    {odd, 3, []string{"--null", "NA", "--name", "shop/odd"}},
		"b.jsonl.gz": {gz.String(), 2, nil},
	} {
		r, status, stderr := demoOf(t, append([]string{"--loaders", "1", "--file", file(t, name, tc.text)}, tc.args...)...)
		if status != exitDone || r.RowsSent != tc.rows || r.RowsLoaded != tc.rows || r.BatchesLoaded != 1 {
			t.Errorf("%s: status %d: %+v\n%s", name, status, r, stderr)
		}
	}
}

// Short values make tuples that are several times as large as their text.
func TestDemoFileOfShortValues(t *testing.T) {
	row := strings.Repeat("1,", 99) + "1\n"
	header := make([]string, 100)
	for i := range header {
		header[i] = fmt.Sprint("c", i)
	}
	r, status, stderr := demoOf(t, "--loaders", "1", "--file", file(t, "short.csv", strings.Join(header, ",")+"\n"+strings.Repeat(row, 2000)))
	if status != exitDone || r.RowsLoaded != 2000 {
		t.Errorf("status %d: %+v\n%s", status, r, stderr)
	}
}

func TestDemoFileChaos(t *testing.T) {
	var text strings.Builder
	text.WriteString("id,name,amount\n")
	for i := range 300_000 {
		fmt.Fprintf(&text, "%d,customer %d of the town,%d.%02d\n", i, i%977, i%89, i%100)
	}
	r, status, stderr := demoOf(t, "--chaos", "--file", file(t, "many.csv", text.String()))
	if status != exitDone || r.RowsLoaded != 300_000 || r.Kills == 0 || r.DuplicatesRefused < r.BatchesSent/2 {
		t.Errorf("status %d: %+v\n%s", status, r, stderr)
	}
}

func TestDemoUsage(t *testing.T) {
	t.Parallel()
	good := file(t, "tills.csv", tills)
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"--file", good, "--rows", "3"}, "--rows and --seed are for made-up rows"},
		{[]string{"--file", "-"}, "--file must be a file"},
		{[]string{"--file", file(t, "tills.txt", tills)}, "--format tells it"},
		{[]string{"--null", "NA"}, "--null is for --file"},
		{[]string{"--kafka-brokers", "127.0.0.1:1"}, "--kafka-brokers and --warehouse-url go together"},
		{[]string{"--kafka-brokers", "nowhere", "--warehouse-url", "postgres://127.0.0.1/x"}, "is not host:port"},
	} {
		fail(t, exitUsage, nil, append([]string{"demo"}, tc.args...), tc.says)
	}
	fail(t, exitFailed, nil, []string{"demo", "--file", file(t, "ragged.csv", "a,b\n1\n")}, "line 2: 1 fields")
}

// inventory is everything on a site that a demo could leave behind.
func (s *site) inventory(t *testing.T) string {
	t.Helper()
	return inventory(t, s.dsn, s.broker.Addr())
}

func inventory(t *testing.T, dsn, broker string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows, _ := conn.Query(t.Context(), `
		SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'
		UNION ALL SELECT 'relation ' || oid::regclass FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema|tallyman$)'
		ORDER BY 1`)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var initialised bool
	if err := conn.QueryRow(t.Context(), "SELECT to_regclass('tallyman.datasets') IS NOT NULL").Scan(&initialised); err != nil {
		t.Fatal(err)
	}
	if initialised {
		rows, _ := conn.Query(t.Context(), `
			SELECT 'dataset ' || dataset FROM tallyman.datasets UNION ALL SELECT 'revision ' || revision_id FROM tallyman.revisions
			UNION ALL SELECT 'batch of ' || revision_id FROM tallyman.loaded_elements UNION ALL SELECT 'position of ' || revision_id FROM tallyman.positions
			ORDER BY 1`)
		entries, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entries...)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request := kmsg.NewPtrMetadataRequest()
	answer, err := request.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range answer.Topics {
		all = append(all, "topic "+*topic.Topic)
	}
	groups, err := kmsg.NewPtrListGroupsRequest().RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.Groups {
		all = append(all, "group "+g.Group)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// own is the part of a command line that names a site.
func (s *site) own() []string {
	return []string{"--kafka-brokers", s.broker.Addr(), "--warehouse-url", s.dsn}
}

// On servers of the user's nothing is left, and what is theirs is as it was.
func TestDemoOnOwnServers(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		for _, initialised := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, initialised %t", version, initialised), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, version)
				if initialised {
					succeed(t, s.env, "init")
					succeed(t, s.env, "dataset", "apply", file(t, "clicks.yaml", clicks), "--partitions", "2")
					fill(t, s)
				}
				before := s.inventory(t)
				r, status, stderr := demoOf(t, append(s.own(), "--rows", "20000", "--loaders", "1")...)
				if status != exitDone || r.RowsLoaded != 20_000 || r.DSN != "" {
					t.Errorf("status %d: %+v\n%s", status, r, stderr)
				}
				contains(t, stderr, "for the time of the demo there are the dataset tallyman_demo_")
				if strings.Contains(stderr, "which the warehouse did not have") == initialised {
					t.Errorf("initialised %t:\n%s", initialised, stderr)
				}
				if after := s.inventory(t); after != before {
					t.Errorf("left is\n%s\nwhere there was\n%s", after, before)
				}
				_, status, stderr = demoOf(t, append(s.own(), "--file", file(t, "tills.csv", tills))...)
				if after := s.inventory(t); status != exitDone || after != before {
					t.Errorf("status %d\n%s\nleft is\n%s\nwhere there was\n%s", status, stderr, after, before)
				}
				if initialised { // and so is the topic there
					wantNoReceipts(t, s)
				}
			})
		}
	}
}

// wantNoReceipts checks that compaction drops what the demo's sources were told.
func wantNoReceipts(t *testing.T, s *site) {
	t.Helper()
	newest := map[string][]byte{}
	for _, r := range sandboxtest.Records(t, s.broker, batch.ReceiptsTopic) {
		newest[string(r.Key)] = r.Value
	}
	if len(newest) == 0 {
		t.Error("the demo's sources were told nothing")
	}
	for key, value := range newest {
		if value != nil {
			t.Errorf("receipt %s is left: %s", key, value)
		}
	}
}

// Whenever it is interrupted, nothing is left.
func TestDemoOnOwnServersInterrupted(t *testing.T) {
	t.Parallel()
	for at, rows := range map[string]string{"for the time of": "1", " loaded ": "3000000", "comparing": "20000"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, sandboxtest.Versions()[1])
			before := s.inventory(t)
			p, _, _ := demoProgram()
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			stderr := &interrupter{text: at, interrupt: interrupt}
			p.stderr = stderr
			status := p.run(ctx, append([]string{"demo", "--rows", rows}, s.own()...))
			if status != exitFailed || !strings.HasSuffix(stderr.written.String(), "tallyman: interrupted; nothing was compared\n") {
				t.Errorf("status %d\n%s", status, stderr.written.String())
			}
			if after := s.inventory(t); after != before {
				t.Errorf("left is\n%s\nwhere there was\n%s", after, before)
			}
		})
	}
}

// What can't be removed is named.
func TestDemoOnOwnServersSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := newSite(t, sandboxtest.Versions()[0])
	p, _, _ := demoProgram()
	stderr := &interrupter{text: " loaded "}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stderr.interrupt = func() {
		_ = s.broker.Stop()
		interrupt()
	}
	p.stderr = stderr
	status := p.run(ctx, append([]string{"demo", "--rows", "3000000"}, s.own()...))
	if status != exitFailed {
		t.Errorf("status %d", status)
	}
	contains(t, stderr.written.String(), "interrupted; nothing was compared", "tallyman: the topic tallyman_demo_", ".conversions is left: ")
	if err := s.broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A real broker keeps the members that were killed until their sessions time
// out, and deletes topics when it has time; in the end nothing is left there, too.
func TestDemoOnRealKafka(t *testing.T) {
	k := sandboxtest.Kafka(t)
	dsn := sandboxtest.Postgres(t, sandboxtest.Versions()[1])
	internal := func(line string) bool { return strings.Contains(line, "__consumer_offsets") }
	before := slices.DeleteFunc(strings.Split(inventory(t, dsn, k.Addr()), "\n"), internal)
	r, status, stderr := demoOf(t, "--rows", "200000", "--chaos", "--kafka-brokers", k.Addr(), "--warehouse-url", dsn)
	if status != exitDone || r.RowsLoaded != 200_000 || r.Kills == 0 {
		t.Errorf("status %d: %+v\n%s", status, r, stderr)
	}
	after := slices.DeleteFunc(strings.Split(inventory(t, dsn, k.Addr()), "\n"), internal)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
}

// A schema tallyman that the demo made stays if somebody began to use it.
func TestDemoOnOwnServersThatOthersBeganToUse(t *testing.T) {
	t.Parallel()
	s := newSite(t, sandboxtest.Versions()[1])
	p, _, _ := demoProgram()
	apply := sync.OnceFunc(func() {
		succeed(t, s.env, "dataset", "apply", file(t, "clicks.yaml", clicks))
	})
	stderr := &interrupter{text: "comparing", interrupt: apply}
	p.stderr = stderr
	if status := p.run(t.Context(), append([]string{"demo", "--rows", "1000"}, s.own()...)); status != exitDone {
		t.Errorf("status %d\n%s", status, stderr.written.String())
	}
	contains(t, succeed(t, s.env, "dataset", "list"), "ads/clicks active")
	if left := s.inventory(t); strings.Contains(left, "tallyman_demo_") {
		t.Errorf("left is\n%s", left)
	}
}
