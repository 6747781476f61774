package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
)

// wider is clicks with a nullable column more.
const wider = clicks + "  - {name: price, type: float64, nullable: true}\n"

// A manifest that adds a column is shown, applied, and shown again beside the
// one before; one that does not fit is refused with every difference.
func TestApplyAFurtherManifest(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, version)
			first, second := file(t, "clicks.yaml", clicks), file(t, "wider.yaml", wider)
			before, after := parse(t, clicks).Hash(), parse(t, wider).Hash()
			succeed(t, s.env, "init")
			contains(t, succeed(t, s.env, "dataset", "apply", first, "--dry-run"), `dry run, nothing is done: ads/clicks: table "public"."clicks" made, topic ads.clicks made`)
			contains(t, succeed(t, s.env, "dataset", "apply", first), "ads/clicks: table", "made", "topic ads.clicks made")

			added := []schema.Difference{{Subject: `column "price"`, Change: "is new: float64, nullable", Fits: true}}
			want := appliedDataset{Dataset: "ads/clicks", Hash: after, Table: `"public"."clicks"`, Topic: "ads.clicks", Widened: true, Changes: added, DryRun: true}
			for _, dry := range []bool{true, true, false} {
				args := []string{"dataset", "apply", second, "-o", "json"}
				if want.DryRun = dry; dry {
					args = append(args, "--dry-run")
				}
				if diff := cmp.Diff([]appliedDataset{want}, decode[[]appliedDataset](t, succeed(t, s.env, args...))); diff != "" {
					t.Error(diff)
				}
			}
			contains(t, succeed(t, s.env, "dataset", "apply", first, second), "there already", "there already")
			contains(t, succeed(t, s.env, "dataset", "list"), "MANIFEST MANIFESTS CREATED", `"public"."clicks" ads.clicks `+after[:12]+" 2 20")
			contains(t, succeed(t, s.env, "dataset", "show", "ads/clicks"), "manifest "+after, "click_id uuid no", "price float64 yes",
				"by 2 manifests", before[:12], "the first", after[:12], `column "price" is new: float64, nullable`)
			shown := decode[listedDataset](t, succeed(t, s.env, "dataset", "show", "ads/clicks", "-o", "json"))
			if len(shown.Manifests) != 2 || shown.Manifests[0].Hash != before || cmp.Diff(added, shown.Manifests[1].Changes) != "" || shown.Hash != after {
				t.Errorf("%+v", shown)
			}

			unfit := file(t, "unfit.yaml", strings.Replace(wider, "click_id, type: uuid", "click, type: text", 1))
			says := []string{`column "click" is new: text, required: make it nullable`, `column "click_id" is gone: keep it`, "Nothing was changed"}
			for _, more := range [][]string{nil, {"--dry-run"}} {
				fail(t, exitFailed, s.env, append([]string{"dataset", "apply", unfit}, more...), says...)
			}
			r := invoke(t, s.env, "dataset", "apply", first, unfit, second, "-o", "json")
			got := decode[[]appliedDataset](t, r.stdout)
			if r.status != exitFailed || len(got) != 2 || got[1].Widened || len(got[1].Changes) != 2 || !strings.Contains(got[1].Error, says[0]) {
				t.Errorf("%d, %+v", r.status, got)
			}
		})
	}
}

// A table of somebody's own is used as it is, or refused for what it is.
func TestApplyToAnExistingTable(t *testing.T) {
	t.Parallel()
	s := newSite(t, "15")
	succeed(t, s.env, "init")
	manifest := file(t, "own.yaml", strings.Replace(clicks, "columns:", "table: {schema: shop, name: clicks, existing: true}\ncolumns:", 1))
	conn, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	const table = `CREATE SCHEMA shop; CREATE TABLE shop.clicks (click_id uuid PRIMARY KEY, "Größe; ""x""" varchar(5))`
	if _, err := conn.Exec(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	apply := []string{"dataset", "apply", manifest}
	fail(t, exitFailed, s.env, apply, "character varying(5), the manifest needs text")
	if _, err := conn.Exec(t.Context(), `ALTER TABLE shop.clicks ALTER "Größe; ""x""" TYPE varchar`); err != nil {
		t.Fatal(err)
	}
	contains(t, succeed(t, s.env, apply...), `ads/clicks: table "shop"."clicks" used as it is, topic ads.clicks made`)
	contains(t, succeed(t, s.env, "dataset", "show", "ads/clicks"), `table "shop"."clicks" used as it is`)
	if l := decode[[]listedDataset](t, succeed(t, s.env, "dataset", "list", "-o", "json")); len(l) != 1 || !l[0].Existing || l[0].Physical != `"shop"."clicks"` {
		t.Errorf("%+v", l)
	}
}
