package demo

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
)

func fileManifest() schema.Manifest {
	return schema.Manifest{
		Table: schema.Table{Schema: "public", Name: "Odd table"},
		Columns: []schema.Column{
			{Name: "n", Type: schema.Int64, Nullable: true}, {Name: "t", Type: schema.Text, Nullable: true},
			{Name: "f", Type: schema.Float64, Nullable: true}, {Name: "j", Type: schema.JSON, Nullable: true},
		},
	}
}

// The comparison of a file sees everything that can be wrong with a table, in
// either format, and nothing in one that is right. Rows may be there twice.
func TestCompareFileSees(t *testing.T) {
	t.Parallel()
	const tableSQL = `CREATE TABLE "Odd table" (n bigint, t text, f double precision, j json, _batch_id uuid)`
	const rowsSQL = `INSERT INTO "Odd table" VALUES
		(1, 'a', 0.1, '{"a": 1}', '11111111-1111-1111-1111-111111111111'), (1, 'a', 0.1, '{"a": 1}', '11111111-1111-1111-1111-111111111111'),
		(9223372036854775807, '', NULL, NULL, '22222222-1111-1111-1111-111111111111'), (NULL, NULL, -2, '["\t\\"]', '22222222-1111-1111-1111-111111111111'),
		(5, E'x\ty\\N\n', 1e10, NULL, '22222222-1111-1111-1111-111111111111')`
	files := map[string]string{
		"csv": "\ufeffn,t,f,j\n1,a,0.1,\"{\"\"a\"\": 1}\"\n1,a,0.1,\"{\"\"a\"\": 1}\"\n9223372036854775807,\"\",,\n,,-2,\"[\"\"\\t\\\\\"\"]\"\n5,\"x\ty\\N\n\",1e10,\n",
		ndjson: `{"n":1,"t":"a","f":0.1,"j":{"a": 1}}` + "\n" + `{"t":"a","n":1,"f":1e-1,"j":{"a": 1}}` + "\n" +
			`{"n":9223372036854775807,"t":"","f":null}` + "\n" + `{"f":-2,"j":["\t\\"]}` + "\n" + `{"n":5,"t":"x\ty\\N\n","f":1e10}`,
	}
	for name, tc := range map[string]struct {
		change string
		want   Count
	}{
		"nothing":       {"SELECT 1", Count{Sent: 5, Loaded: 5}},
		"a row lost":    {`DELETE FROM "Odd table" WHERE n = 5`, Count{Sent: 5, Loaded: 4, Lost: 1}},
		"one of two":    {`DELETE FROM "Odd table" WHERE ctid = (SELECT min(ctid) FROM "Odd table" WHERE n = 1)`, Count{Sent: 5, Loaded: 4, Lost: 1}},
		"three of two":  {`INSERT INTO "Odd table" SELECT * FROM "Odd table" WHERE n = 1 LIMIT 1`, Count{Sent: 5, Loaded: 6, Doubled: 1}},
		"all twice":     {`INSERT INTO "Odd table" SELECT * FROM "Odd table"`, Count{Sent: 5, Loaded: 10, Doubled: 5}},
		"a large one":   {`UPDATE "Odd table" SET n = n - 1 WHERE t = ''`, Count{Sent: 5, Loaded: 5, Lost: 1, Altered: 1}},
		"empty as NULL": {`UPDATE "Odd table" SET t = NULL WHERE t = ''`, Count{Sent: 5, Loaded: 5, Lost: 1, Altered: 1}},
		"the last bit":  {`UPDATE "Odd table" SET f = 0.1::float8 + 2e-17 WHERE n = 1`, Count{Sent: 5, Loaded: 5, Lost: 2, Altered: 2}},
		"a space":       {`UPDATE "Odd table" SET j = '{"a":1}' WHERE n = 1`, Count{Sent: 5, Loaded: 5, Lost: 2, Altered: 2}},
		"a newline":     {`UPDATE "Odd table" SET t = trim(E'\n' FROM t)`, Count{Sent: 5, Loaded: 5, Lost: 1, Altered: 1}},
		"a stranger":    {`INSERT INTO "Odd table" SELECT 7`, Count{Sent: 5, Loaded: 6, Altered: 1}},
	} {
		for format, text := range files {
			t.Run(name+" of "+format, func(t *testing.T) {
				t.Parallel()
				conn, err := pgx.Connect(t.Context(), sandboxtest.Postgres(t, "15"))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close(t.Context()) }()
				for _, sql := range []string{tableSQL, rowsSQL, tc.change} {
					if _, err := conn.Exec(t.Context(), sql); err != nil {
						t.Fatalf("%s: %v", sql, err)
					}
				}
				path := filepath.Join(t.TempDir(), "file")
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				got, batches, err := compareFile(t.Context(), conn, File{Path: path, Format: format}, fileManifest())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Error(diff)
				}
				if name == "nothing" && batches != 2 {
					t.Errorf("%d batches, want 2", batches)
				}
			})
		}
	}
}
