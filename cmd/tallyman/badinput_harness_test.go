package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/ddl"
	"tallyman/schema/rows"
)

// stall is how long a test waits for something before it gives up.
const stall = 30 * time.Second

// draft is a message in the making: a batch until it is sealed, then a record.
type draft struct {
	codec  *rows.Codec
	batch  batch.Batch
	record *kgo.Record
	sealed []func(*draft)
}

// change makes a draft differ from a good batch.
type change func(*draft)

// lines puts rows as NDJSON into the batch, a line each.
func lines(text ...string) change {
	return func(d *draft) {
		d.batch.ContentType, d.batch.Rows = batch.NDJSON, len(text)
		d.batch.Value = []byte(strings.Join(text, "\n"))
	}
}

// native puts one row as a native tuple into the batch.
func native(values ...any) change {
	return func(d *draft) {
		var err error
		if d.batch.Value, err = d.codec.Append(nil, d.batch.ID, values); err != nil {
			panic(err) // a mistake in the table of cases
		}
		d.batch.ContentType, d.batch.Rows = batch.Native, 1
	}
}

// raw puts one native tuple into the batch whose fields nobody has looked into;
// a column that is not named is NULL.
func raw(fields map[string]string) change {
	return func(d *draft) {
		columns := d.codec.Columns()
		value := binary.BigEndian.AppendUint16(nil, uint16(len(columns)))
		for _, c := range columns {
			field, given := fields[c]
			if c == schema.BatchIDColumn && !given {
				field, given = string(d.batch.ID[:]), true
			}
			if !given {
				value = append(value, 0xff, 0xff, 0xff, 0xff)
				continue
			}
			value = append(binary.BigEndian.AppendUint32(value, uint32(len(field))), field...)
		}
		d.batch.ContentType, d.batch.Rows, d.batch.Value = batch.Native, 1, value
	}
}

// edit changes the batch before its digest is made.
func edit(f func(*batch.Batch)) change { return func(d *draft) { f(&d.batch) } }

// message changes the record that the sealed batch became.
func message(f func(*kgo.Record)) change {
	return func(d *draft) { d.sealed = append(d.sealed, func(d *draft) { f(d.record) }) }
}

// header sets a header to a value that may depend on the id.
func header(key string, value func(id uuid.UUID) string) change {
	return func(d *draft) {
		d.sealed = append(d.sealed, func(d *draft) {
			i := slices.IndexFunc(d.record.Headers, func(h kgo.RecordHeader) bool { return h.Key == key })
			if i < 0 {
				i = len(d.record.Headers)
				d.record.Headers = append(d.record.Headers, kgo.RecordHeader{Key: key})
			}
			d.record.Headers[i].Value = []byte(value(d.batch.ID))
		})
	}
}

// says sets a header to a text.
func says(key, value string) change {
	return header(key, func(uuid.UUID) string { return value })
}

// without removes headers.
func without(keys ...string) change {
	return message(func(r *kgo.Record) {
		r.Headers = slices.DeleteFunc(r.Headers, func(h kgo.RecordHeader) bool { return slices.Contains(keys, h.Key) })
	})
}

// want is what becomes of a message.
type want struct {
	outcome string // "loaded", "duplicate", "skipped", "quarantined", or "repeated": quarantined already
	reason  batch.Reason
	detail  string // in the quarantine's detail
	query   string // an expression over the batch's one row
	answer  string // to the query
}

// send is a message of a case. Those of one case share the id and the content.
type send struct {
	want
	changes []change
}

func bad(reason batch.Reason, detail string, changes ...change) []send {
	return []send{{want{outcome: "quarantined", reason: reason, detail: detail}, changes}}
}

func good(query, answer string, changes ...change) []send {
	return []send{{want{outcome: "loaded", query: query, answer: answer}, changes}}
}

// repeated is a message that is in quarantine by the one before it.
func repeated(reason batch.Reason, changes ...change) send {
	return send{want{outcome: "repeated", reason: reason}, changes}
}

func duplicate(changes ...change) send { return send{want{outcome: "duplicate"}, changes} }

func skipped(changes ...change) []send { return []send{{want{outcome: "skipped"}, changes}} }

// badCase is a line of a table: what is sent, and what becomes of it.
type badCase struct {
	name  string
	sends []send
}

// sent is a message in the log with what is wanted of it.
type sent struct {
	want
	name   string // of its case
	batch  batch.Batch
	record *kgo.Record
}

// stream is a dataset with its one partition, and everything that was sent.
type stream struct {
	site     *badSite
	manifest schema.Manifest
	revision int64
	good     []change // what makes a batch of it a good one
	codec    *rows.Codec
	sent     []sent
}

// badSite is a warehouse, a broker and the loaders between them, which run as
// processes of their own and with no more rights than they need.
type badSite struct {
	*site
	t      *testing.T
	owner  *pgxpool.Pool
	client *kgo.Client
	role   string
	loader []string // a loader's environment
}

func newBadSite(t *testing.T, settings map[string]string) *badSite {
	t.Helper()
	dsn := sandboxtest.Postgres(t, "18")
	s := &badSite{t: t, site: &site{dsn: dsn, broker: sandboxtest.Broker(t, sandbox.BrokerConfig{Settings: settings})}, role: "loader_" + uuid.NewString()}
	s.env = []string{"DATABASE_URL=" + s.dsn, "KAFKA_BROKERS=" + s.broker.Addr(), "HOME=" + t.TempDir()}
	succeed(t, s.env, "init")
	var err error
	if s.owner, err = pgxpool.New(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	role := pgx.Identifier{s.role}.Sanitize()
	s.exec("CREATE ROLE " + role + " LOGIN")
	t.Cleanup(func() {
		_, err := s.owner.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		if err != nil {
			t.Error(err)
		}
		s.owner.Close()
	})
	s.exec("GRANT USAGE ON SCHEMA tallyman TO " + role)
	s.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tallyman TO " + role)
	s.exec("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA tallyman TO " + role)
	c := s.owner.Config().ConnConfig
	s.loader = append(os.Environ(), asProgram, "KAFKA_BROKERS="+s.broker.Addr(), "TALLYMAN_ADMIN_LISTEN=127.0.0.1:0",
		fmt.Sprintf("DATABASE_URL=host=%s port=%d dbname=%s user='%s' sslmode=disable", c.Host, c.Port, c.Database, s.role),
		"TALLYMAN_LOADER_PROBE_INTERVAL=500ms", "TALLYMAN_LOADER_FOREIGN_KEY_GRACE=4s")
	if s.client, err = kgo.NewClient(kgo.SeedBrokers(s.broker.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(64<<20), kgo.BrokerMaxWriteBytes(100<<20)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	return s
}

func (s *badSite) exec(statement string, args ...any) {
	s.t.Helper()
	if _, err := s.owner.Exec(s.t.Context(), statement, args...); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

// stream applies a manifest and lets the loaders into the table.
func (s *badSite) stream(manifest string, good ...change) *stream {
	s.t.Helper()
	m := parse(s.t, manifest)
	succeed(s.t, s.env, "dataset", "apply", file(s.t, "manifest.yaml", manifest), "--partitions", "1", "--replication-factor", "1")
	succeed(s.t, s.env, "job", "deploy", "load", m.Dataset.String())
	codec, err := rows.NewCodec(m)
	if err != nil {
		s.t.Fatal(err)
	}
	st := &stream{site: s, manifest: m, good: good, codec: codec}
	if err := s.owner.QueryRow(s.t.Context(), "SELECT revision_id FROM tallyman.revisions WHERE dataset = $1", m.Dataset.String()).Scan(&st.revision); err != nil {
		s.t.Fatal(err)
	}
	role := pgx.Identifier{s.role}.Sanitize()
	s.exec("GRANT USAGE ON SCHEMA " + pgx.Identifier{m.Table.Schema}.Sanitize() + " TO " + role)
	// Loading needs INSERT; with SELECT PostgreSQL quotes values in its errors.
	s.exec("GRANT INSERT, SELECT ON " + st.table() + " TO " + role)
	return st
}

// table is the quoted name of the physical table.
func (st *stream) table() string { return ddl.PostgresName(ddl.Physical(st.manifest, 1)) }

// begin makes a good batch.
func (st *stream) begin() *draft {
	d := &draft{codec: st.codec, batch: batch.Batch{ID: batch.NewID(), Source: "stranger", Dataset: st.manifest.Dataset, Schema: st.manifest.Hash()}}
	d.batch.Time, _ = batch.TimeOf(d.batch.ID)
	for _, c := range st.good {
		c(d)
	}
	return d
}

// seal makes the draft a record.
func (d *draft) seal() {
	d.batch.Seal()
	d.record = &kgo.Record{Key: d.batch.Key(), Value: d.batch.Value}
	for _, h := range d.batch.Headers() {
		d.record.Headers = append(d.record.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	for _, f := range d.sealed {
		f(d)
	}
}

// produce sends a case's messages.
func (st *stream) produce(name string, sends []send) {
	st.site.t.Helper()
	base := st.begin()
	for _, one := range sends {
		d := &draft{codec: st.codec, batch: base.batch}
		for _, c := range one.changes {
			c(d)
		}
		d.seal()
		d.record.Topic = st.manifest.Topic
		if err := st.site.client.ProduceSync(st.site.t.Context(), d.record).FirstErr(); err != nil {
			st.site.t.Fatal(err)
		}
		st.sent = append(st.sent, sent{one.want, name, d.batch, d.record})
	}
}

// produceCases sends every case between two good batches.
func (st *stream) produceCases(cases []badCase) {
	st.site.t.Helper()
	for _, c := range cases {
		st.produce("before "+c.name, good("", ""))
		st.produce(c.name, c.sends)
		st.produce("after "+c.name, good("", ""))
	}
}

// process is a loader.
type process struct {
	t       *testing.T
	address string // of its metrics and probes
	log     *logText
}

// logText collects what a process logs.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// load starts a loader of every dataset; it ends well with the test.
func (s *badSite) load(env ...string) *process {
	s.t.Helper()
	p := &process{t: s.t, log: &logText{}}
	cmd := exec.Command(os.Args[0], "load")
	cmd.Env, cmd.Stderr = append(slices.Clone(s.loader), env...), p.log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("the loader ended: %v", err)
		}
		if s.t.Failed() {
			s.t.Logf("the loader's log:\n%.20000s", p.log)
		}
	})
	p.until("the address", func() bool {
		_, rest, found := strings.Cut(p.log.String(), `msg="metrics and probes" address=`)
		p.address, _, _ = strings.Cut(rest, "\n")
		return found
	})
	return p
}

// until waits for something that the test needs to go on.
func (p *process) until(what string, done func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(stall); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("no %s within %s", what, stall)
		}
	}
}

// get asks the loader for a page.
func (p *process) get(path string) string {
	p.t.Helper()
	answer, err := http.Get("http://" + p.address + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(body)
}

// ready asks whether everything is being loaded, and checks that the answer can
// be looked at in a terminal.
func (p *process) ready() string {
	p.t.Helper()
	page := p.get("/readyz")
	for line := range strings.Lines(page) {
		if line = strings.TrimSuffix(line, "\n"); printable(line) != line {
			p.t.Errorf("the probe answers %q", line)
		}
	}
	return page
}

// revisionLabel is the label that tells a dataset's revisions apart, of which there is one here.
var revisionLabel = regexp.MustCompile(`,revision="[0-9]+"`)

// metric returns a series' value as it is written; "": there is none.
func (p *process) metric(series string) string {
	p.t.Helper()
	for line := range strings.Lines(revisionLabel.ReplaceAllString(p.get("/metrics"), "")) {
		if value, found := strings.CutPrefix(line, series+" "); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// position is the next offset that the warehouse has for the stream.
func (st *stream) position() (next int64) {
	st.site.t.Helper()
	if err := st.site.owner.QueryRow(st.site.t.Context(), "SELECT coalesce(max(next_offset), 0) FROM tallyman.positions WHERE revision_id = $1", st.revision).Scan(&next); err != nil {
		st.site.t.Fatal(err)
	}
	return next
}

// passed waits until the position is past everything that was sent.
func (st *stream) passed(p *process) {
	st.site.t.Helper()
	end := st.sent[len(st.sent)-1].record.Offset + 1
	p.until(fmt.Sprintf("position %d of %s", end, st.manifest.Dataset), func() bool { return st.position() >= end })
}

// check compares the warehouse and the metrics with what was wanted of every
// message of the stream.
func (st *stream) check(p *process) {
	t := st.site.t
	t.Helper()
	outcomes, reasons, repeats, total := map[string]int{}, map[batch.Reason]int{}, map[batch.Reason]int{}, 0
	for i := range st.sent {
		m := &st.sent[i]
		outcomes[m.outcome]++
		if m.outcome == "repeated" {
			repeats[m.reason]++
		} else {
			reasons[m.reason]++
		}
		if m.outcome == "loaded" {
			total += m.batch.Rows
		}
		if m.reason == batch.IDConflict {
			outcomes["conflict"]++
			outcomes["quarantined"]--
		}
		st.checkOne(m)
	}
	delete(reasons, "")
	var inTable, inLedger, dead int
	if err := st.site.owner.QueryRow(t.Context(), fmt.Sprintf(`SELECT (SELECT count(*) FROM %s),
		(SELECT count(*) FROM tallyman.loaded_elements WHERE revision_id = $1),
		(SELECT count(*) FROM tallyman.quarantine WHERE revision_id = $1)`, st.table()), st.revision).Scan(&inTable, &inLedger, &dead); err != nil {
		t.Fatal(err)
	}
	if want := outcomes["quarantined"] + outcomes["conflict"]; inTable != total || inLedger != outcomes["loaded"] || dead != want {
		t.Errorf("%s: %d rows, %d batches and %d in quarantine, want %d, %d and %d", st.manifest.Dataset, inTable, inLedger, dead, total, outcomes["loaded"], want)
	}
	outcomes["quarantined"] += outcomes["repeated"] // each is counted, one is kept
	for _, outcome := range []string{"loaded", "duplicate", "quarantined", "conflict"} {
		series := fmt.Sprintf(`tallyman_loader_batches_total{dataset=%q,outcome=%q}`, st.manifest.Dataset, outcome)
		if got := p.metric(series); got != fmt.Sprint(outcomes[outcome]) {
			t.Errorf("%s is %q, want %d", series, got, outcomes[outcome])
		}
	}
	for reason, n := range reasons {
		series := fmt.Sprintf(`tallyman_loader_quarantined_total{dataset=%q,reason=%q}`, st.manifest.Dataset, reason)
		if got := p.metric(series); got != fmt.Sprint(n+repeats[reason]) {
			t.Errorf("%s is %q, want %d", series, got, n+repeats[reason])
		}
	}
	got := map[batch.Reason]int{}
	for _, q := range decode[statusReport](t, succeed(t, st.site.env, "status", st.manifest.Dataset.String(), "-o", "json")).Datasets[0].Quarantine {
		got[batch.Reason(q.Reason)] = int(q.Messages)
	}
	if diff := cmp.Diff(reasons, got); diff != "" {
		t.Errorf("%s: status: %s", st.manifest.Dataset, diff)
	}
	st.checkListed()
}

// checkOne compares what became of one message with what was wanted.
func (st *stream) checkOne(m *sent) {
	t := st.site.t
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s, %s, offset %d: %s", st.manifest.Dataset, m.name, m.record.Offset, fmt.Sprintf(format, args...))
	}
	row, found := st.kept(m.record.Offset)
	if found != (m.outcome == "quarantined") {
		fail("quarantined is %t: %s %s", found, row.Reason, row.Detail)
	}
	var inTable, inLedger, wantTable, wantLedger int
	var digest []byte // NULL: an entry with any would be one too many
	if loaded := st.loaded(m.batch.ID); loaded != nil {
		content := loaded.Content()
		wantTable, wantLedger, digest = loaded.Rows, 1, content[:]
	}
	if err := st.site.owner.QueryRow(t.Context(), fmt.Sprintf(`SELECT (SELECT count(*) FROM %s WHERE _batch_id = $2),
		(SELECT count(*) FROM tallyman.loaded_elements WHERE revision_id = $1 AND unique_id = $2 AND digest = coalesce($3::bytea, digest))`, st.table()),
		st.revision, m.batch.ID.String(), digest).Scan(&inTable, &inLedger); err != nil {
		t.Fatal(err)
	}
	if inTable != wantTable || inLedger != wantLedger {
		fail("%d rows in the table and %d entries in the ledger, want %d and %d", inTable, inLedger, wantTable, wantLedger)
	}
	if m.query != "" {
		var answer string
		if err := st.site.owner.QueryRow(t.Context(), fmt.Sprintf("SELECT %s FROM %s WHERE _batch_id = $1", m.query, st.table()), m.batch.ID.String()).Scan(&answer); err != nil {
			fail("%s: %v", m.query, err)
		} else if answer != m.answer {
			fail("%s is %q, want %q", m.query, answer, m.answer)
		}
	}
	if !found {
		return
	}
	if !strings.Contains(row.Detail, m.detail) {
		fail("the detail is %q, want %q in it", row.Detail, m.detail)
	}
	row.Detail = ""
	if k := m.keeps(); !reflect.DeepEqual(k, row) { // which tells NULL from empty
		fail("kept is not what was sent:\n%.3000s", cmp.Diff(k, row))
	}
}

// loaded returns the batch of that id that was to be loaded; nil: none.
func (st *stream) loaded(id uuid.UUID) *batch.Batch {
	for i := range st.sent {
		if m := &st.sent[i]; m.outcome == "loaded" && m.batch.ID == id {
			return &m.batch
		}
	}
	return nil
}

// kept is a row of quarantine.
type kept struct {
	Reason, Detail string
	Key            []byte
	Headers        [][]byte
	Payload        []byte
	Size           int64
	Sum            []byte
	Whole          bool
}

// kept reads what quarantine has of the message at an offset.
func (st *stream) kept(offset int64) (k kept, found bool) {
	st.site.t.Helper()
	rows, err := st.site.owner.Query(st.site.t.Context(), `SELECT reason, detail, message_key, headers, payload, payload_size, payload_sha256, payload_whole
		FROM tallyman.quarantine WHERE revision_id = $1 AND topic = $2 AND partition = 0 AND kafka_offset = $3`, st.revision, st.manifest.Topic, offset)
	if err != nil {
		st.site.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[kept])
	if err != nil || len(all) > 1 {
		st.site.t.Fatalf("%d rows of quarantine: %v", len(all), err)
	}
	if len(all) == 0 {
		return kept{}, false
	}
	return all[0], true
}

// keeps is what quarantine has to hold of a message, byte for byte.
func (m *sent) keeps() kept {
	k := kept{Reason: string(m.reason), Key: m.record.Key, Headers: [][]byte{}, Payload: m.record.Value, Size: int64(len(m.record.Value)), Whole: true}
	for _, h := range m.record.Headers {
		k.Headers = append(k.Headers, []byte(h.Key), h.Value)
	}
	sum := sha256.Sum256(m.record.Value)
	k.Sum = sum[:]
	if len(k.Payload) > 8<<20 {
		k.Payload, k.Whole = k.Payload[:64<<10], false
	}
	return k
}
