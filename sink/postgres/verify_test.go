package postgres_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// mixed loads batches of every kind of id, one after another, and returns them:
// two of v7, of 2001 and of now, one of v4 and one of v1, both of 2010, and
// three of files.
func mixed(t *testing.T, w *warehouse) []sink.Element {
	t.Helper()
	old := uuid.MustParse("00e4e1c0-e800-7000-8000-000000000001") // 2001-02-03
	v1 := uuid.MustParse("1c8e4000-11de-11df-8000-000000000001")  // 2010-02-04
	ids := []uuid.UUID{old, batch.NewID(), uuid.New(), v1}
	for chunk := range uint64(3) {
		ids = append(ids, batch.FileID(w.revision.Manifest.Dataset, "csv", batch.Digest{}, chunk, ""))
	}
	var elements []sink.Element
	for i, id := range ids {
		p := w.partition(0)
		e := w.element(batch.NewID(), p, p.Next)
		b := e.Batch
		b.ID, b.Rows, b.Value = id, 2, nil
		var err error
		if b.Time, err = batch.TimeWith(id, time.Date(2010, 2, 3, 4, 5, 6, 0, time.UTC)); id.Version() != 4 {
			b.Time, err = batch.TimeOf(id)
		}
		for row := range 2 {
			if err == nil {
				b.Value, err = w.codec.Append(b.Value, id, []any{int64(i), fmt.Sprintf("row %d", row)})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		b.Seal()
		e.Key, e.Value, e.Headers, e.Content, e.Tuples = b.Key(), b.Value, b.Headers(), b.Content(), b.Value
		if _, err := w.committer().Commit(t.Context(), w.group(p, p.Next+1, e)); err != nil {
			t.Fatal(err)
		}
		elements = append(elements, e)
	}
	return elements
}

// verify runs a verification to its end, and offers elements to every slice.
func (w *warehouse) verify(o postgres.VerifyOptions, elements []sink.Element) (postgres.Verified, int) {
	w.t.Helper()
	infos, err := w.Datasets(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	v := w.NewVerifier(infos[0], o)
	for slices := 0; ; slices++ {
		more, err := v.Next(w.t.Context())
		if err == nil && more && o.Values {
			err = v.Compare(w.t.Context(), elements)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if !more {
			return v.Result(), slices
		}
	}
}

// kinds are findings as text, in a set order.
func kinds(elements []sink.Element, found []postgres.Finding) []string {
	lines := []string{}
	for _, f := range found {
		i := slices.IndexFunc(elements, func(e sink.Element) bool { return e.Batch.ID == f.Batch })
		lines = append(lines, fmt.Sprintf("%d %s %d %d", i, f.Kind, f.Want, f.Have))
	}
	slices.Sort(lines)
	return lines
}

// However many batches are verified at a time, the same is found: each batch
// belongs to one slice.
func TestVerifySlices(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			elements := mixed(t, w)
			check := func(o postgres.VerifyOptions, want postgres.Verified, lines ...string) {
				t.Helper()
				for _, n := range []int{1, 2, 3, 7, 100} {
					o.SliceBatches = n
					got, many := w.verify(o, elements)
					if diff := cmp.Diff(append([]string{}, lines...), kinds(elements, got.Findings)); diff != "" {
						t.Errorf("%d at a time: %s", n, diff)
					}
					if o.Since.IsZero() && o.Until.IsZero() && many != len(elements)/n+1 {
						t.Errorf("%d at a time are %d slices", n, many)
					}
					got.Findings, got.Total = nil, nil
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%d at a time: %s", n, diff)
					}
				}
			}
			all := postgres.Verified{Batches: 7, Rows: 14, TableRows: 14}
			check(postgres.VerifyOptions{}, all)
			all.Compared = 7
			check(postgres.VerifyOptions{Values: true}, all)
			year := func(n int) time.Time { return time.Date(n, 1, 1, 0, 0, 0, 0, time.UTC) }
			check(postgres.VerifyOptions{Since: year(2005)}, postgres.Verified{Batches: 3, Rows: 6, TableRows: 6})
			check(postgres.VerifyOptions{Since: year(2005), Until: year(2015)}, postgres.Verified{Batches: 2, Rows: 4, TableRows: 4})
			check(postgres.VerifyOptions{Until: year(2005)}, postgres.Verified{Batches: 4, Rows: 8, TableRows: 8})

			execute(t, w.conn,
				"INSERT INTO events__r1 VALUES (1, NULL, gen_random_uuid()), (2, NULL, '00e4e1c0-e800-7000-8000-0000000000ff'), (3, NULL, 'ffffffff-ffff-8fff-bfff-ffffffffffff')",
				"INSERT INTO events__r1 SELECT * FROM events__r1 WHERE n = 2 AND note = 'row 0'",
				"DELETE FROM events__r1 WHERE n = 4",
				"UPDATE events__r1 SET note = 'row 1' WHERE n = 6")
			bad := []string{"-1 unknown_batch 0 1", "-1 unknown_batch 0 1", "-1 unknown_batch 0 1", "2 too_many_rows 2 3", "4 no_rows 2 0"}
			check(postgres.VerifyOptions{}, postgres.Verified{Batches: 7, Rows: 14, TableRows: 16}, bad...)
			check(postgres.VerifyOptions{Values: true}, postgres.Verified{Batches: 7, Rows: 14, TableRows: 16, Compared: 5},
				append(bad, "6 altered_batch 2 2")...)
			if got, _ := w.verify(postgres.VerifyOptions{Limit: 2}, nil); len(got.Findings) != 2 || got.Total[postgres.UnknownBatch] != 3 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A batch that is offered with other content is not what was loaded, and a
// batch that is offered by nobody can't be compared.
func TestVerifyComparesWithWhatWasLoaded(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	elements := mixed(t, w)
	other := w.element(elements[1].Batch.ID, w.partition(0), 9, []any{int64(1), "x"}, []any{int64(1), "y"})
	got, _ := w.verify(postgres.VerifyOptions{Values: true}, append(elements[2:], other, elements[2]))
	if got.Compared != 5 || got.Lost != 2 || len(got.Findings) != 0 ||
		!slices.Contains(got.FirstLost, elements[0].Batch.ID) || !slices.Contains(got.FirstLost, elements[1].Batch.ID) {
		t.Errorf("%+v", got)
	}
}

// What the ledger has forgotten is no finding, be it by a retention or by hand.
func TestVerifyBeforeTheHorizon(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(*testing.T, *warehouse){
		"by hand": func(t *testing.T, w *warehouse) { execute(t, w.conn, "DROP TABLE tallyman.loaded_elements_older") },
		"by retention": func(t *testing.T, w *warehouse) {
			if _, err := w.Init(t.Context(), postgres.InitOptions{Retention: &postgres.Retention{Days: 400}}); err != nil {
				t.Fatal(err)
			}
			if n := w.count("SELECT count(*) FROM tallyman.v4_ids"); n != 0 {
				t.Errorf("%d times of v4 ids are kept", n)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
			mixed(t, w)
			forget(t, w)
			got, _ := w.verify(postgres.VerifyOptions{}, nil)
			if got.Forgotten != 6 || got.Batches != 4 || got.TableRows != 8 || len(got.Findings) != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A table of several pieces, by manifests of more and more columns, of types
// that PostgreSQL itself can't compare.
func TestVerifyValuesOfManyPages(t *testing.T) {
	t.Parallel()
	const wide = `
dataset: test/wide
columns:
  - {name: n, type: int64}
  - {name: "a \"b\"", type: json, nullable: true}
`
	w := open(t, sandboxtest.Postgres(t, "18"), wide, postgres.Config{})
	p := w.partition(0)
	first := w.element(batch.NewID(), p, 0, []any{int64(1), `{"a": 1}`}, []any{int64(2), nil})
	if _, err := w.committer().Commit(t.Context(), w.group(p, 1, first)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Apply(t.Context(), manifest(t, wide+"  - {name: more, type: float64, nullable: true}\n")); err != nil {
		t.Fatal(err)
	}
	id := batch.NewID()
	// More than one piece: 20,000 rows of half a page each.
	execute(t, w.conn, `ALTER TABLE wide__r1 ALTER "a ""b""" SET STORAGE PLAIN`)
	execute(t, w.conn, fmt.Sprintf(`INSERT INTO wide__r1 (n, _batch_id, "a ""b""") SELECT i, '%s', to_json(repeat('x', 3900)) FROM generate_series(1, 20000) i`, id))
	execute(t, w.conn, fmt.Sprintf(`INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, row_count, byte_count, digest)
SELECT revision_id, batch_time, '%s', 'loaded', 20000, 0, digest FROM tallyman.loaded_elements`, id))
	// A batch with rows in both pieces.
	execute(t, w.conn, fmt.Sprintf("WITH moved AS (DELETE FROM wide__r1 WHERE n = 1 AND _batch_id = '%s' RETURNING *) INSERT INTO wide__r1 SELECT * FROM moved", first.Batch.ID))
	if n := w.count("SELECT count(*) FROM wide__r1 WHERE _batch_id = $1 AND ctid > '(8192,0)'", first.Batch.ID); n != 1 {
		t.Fatalf("%d rows of the first batch are in the second piece", n)
	}
	var done, total int64
	o := postgres.VerifyOptions{Values: true, Progress: func(d, all int64) { done, total = d, all }}
	if got, _ := w.verify(o, []sink.Element{first}); got.Compared != 1 || got.Lost != 1 || len(got.Findings) != 0 || got.TableRows != 20002 {
		t.Errorf("%+v", got)
	}
	if done != total || total < 70<<20 {
		t.Errorf("%d of %d bytes", done, total)
	}
	execute(t, w.conn, "UPDATE wide__r1 SET more = 0 WHERE n = 2")
	if got, _ := w.verify(o, []sink.Element{first}); len(got.Findings) != 1 || got.Findings[0].Kind != postgres.AlteredBatch {
		t.Errorf("%+v", got)
	}
}

// Tables that were there before say of no row where it came from.
func TestVerifyExistingTable(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "15"), events, postgres.Config{})
	for _, kind := range []string{"", " PARTITION BY RANGE (n)"} {
		name := fmt.Sprintf("there%d", len(kind))
		execute(t, w.conn, "CREATE TABLE "+name+" (n bigint NOT NULL)"+kind)
		if kind != "" {
			execute(t, w.conn, "CREATE TABLE "+name+"_1 PARTITION OF "+name+" DEFAULT")
		}
		m := manifest(t, "dataset: a/"+name+"\ntable: {schema: public, name: "+name+", existing: true}\ncolumns: [{name: n, type: int64}]")
		applied, err := w.Apply(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		execute(t, w.conn, "INSERT INTO "+name+" VALUES (1), (2), (3)")
		execute(t, w.conn, fmt.Sprintf(`INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, row_count, byte_count, digest)
VALUES (%d, now(), gen_random_uuid(), 'loaded', 2, 0, sha256(''))`, applied.Revision.ID))
		total := func() postgres.Verified {
			v := w.NewVerifier(postgres.DatasetInfo{Revision: applied.Revision}, postgres.VerifyOptions{})
			if _, err := v.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			return v.Result()
		}
		if got := total(); got.TableRows != 3 || got.Rows != 2 || len(got.Findings) != 0 {
			t.Errorf("%+v", got)
		}
		execute(t, w.conn, "DELETE FROM "+name+" WHERE n > 1")
		if got := total(); len(got.Findings) != 1 || got.Findings[0] != (postgres.Finding{Kind: postgres.OtherTotal, Want: 2, Have: 1}) {
			t.Errorf("%+v", got)
		}
	}
}

// Where no row says of which batch it is, rows that the ledger has forgotten are
// no finding, and rows that are gone still are.
func TestVerifyTotalBehindTheHorizon(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events+"batch_id: false\n", postgres.Config{})
	p := w.partition(0)
	if _, err := w.committer().Commit(t.Context(), w.group(p, 2, w.element(idAt(mid(0)), p, 0, []any{int64(1), nil}), w.element(batch.NewID(), p, 1, []any{int64(2), nil}))); err != nil {
		t.Fatal(err)
	}
	total := func() postgres.Verified {
		got, _ := w.verify(postgres.VerifyOptions{}, nil)
		return got
	}
	if got := total(); got.TableRows != 2 || got.Forgotten != 0 || len(got.Findings) != 0 {
		t.Errorf("%+v", got)
	}
	if _, err := w.Init(t.Context(), postgres.InitOptions{Retention: &postgres.Retention{Days: 400}}); err != nil {
		t.Fatal(err)
	}
	if got := total(); got.TableRows != 2 || got.Rows != 1 || got.Forgotten != 1 || len(got.Findings) != 0 {
		t.Errorf("%+v", got)
	}
	execute(t, w.conn, "DELETE FROM events__r1")
	if got := total(); len(got.Findings) != 1 {
		t.Errorf("%+v", got)
	}
}
