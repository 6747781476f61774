package arch

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestProject holds the module itself to every rule.
func TestProject(t *testing.T) {
	t.Parallel()
	tree, err := Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if tree.Module != "tallyman" || len(tree.Packages) < 5 {
		t.Fatalf("read module %q with %d packages: not the module", tree.Module, len(tree.Packages))
	}
	for _, f := range Check(tree, Rules()) {
		t.Error(f)
	}
}

// control is a small module that breaks one rule, and where.
type control struct {
	rule  string
	files map[string]string
	want  []string // findings: "path:line: " and some of the text
}

// TestRulesCatch shows for each rule that it sees what it is there to see, and
// that it is quiet about what looks much the same and is allowed.
func TestRulesCatch(t *testing.T) {
	t.Parallel()
	controls := slices.Concat(sizeControls(), docControls(), globalControls(), importControls(), wordControls())
	for _, r := range Rules() {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			checked := false
			for _, c := range controls {
				if c.rule == r.Name {
					checked = true
					c.run(t, r)
				}
			}
			if !checked {
				t.Error("rule without a control")
			}
		})
	}
}

func (c control) run(t *testing.T, r Rule) {
	t.Helper()
	tree, err := Load(c.tree())
	if err != nil {
		t.Fatal(err)
	}
	found := Check(tree, []Rule{r})
	for _, want := range c.want {
		place, text, _ := strings.Cut(want, ": ")
		matches := func(f Finding) bool {
			s := f.String()
			return strings.HasPrefix(s, place+": ") && strings.Contains(s, text)
		}
		i := slices.IndexFunc(found, matches)
		if i < 0 {
			t.Errorf("not caught: %s", want)
			continue
		}
		found = slices.Delete(found, i, i+1)
	}
	for _, f := range found {
		t.Errorf("caught, but allowed: %s", f)
	}
}

func (c control) tree() fs.FS {
	fsys := fstest.MapFS{"go.mod": {Data: []byte("module tallyman\n\ngo 1.26\n")}}
	for name, content := range c.files {
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return fsys
}

// TestLayersGoOneWay checks the table itself: no two layers may each import the other.
func TestLayersGoOneWay(t *testing.T) {
	t.Parallel()
	table := arrows()
	for _, a := range table {
		for _, b := range table {
			if within(a.dir, b.dir) || within(b.dir, a.dir) {
				continue
			}
			if matches(a.may, b.dir) && matches(b.may, a.dir) {
				t.Errorf("%s and %s may import each other", a.dir, b.dir)
			}
		}
	}
}

func lines(n int) string { return strings.Repeat("\n", n) }

func sizeControls() []control {
	long := func(n int) string { return "package p\n\nfunc f() {" + lines(n-1) + "}\n" }
	return []control{
		{"file-length", map[string]string{
			"a/long.go":       "package a\n" + lines(400),
			"a/fits.go":       "package a\n" + lines(399),
			"a/long_test.go":  "package a\n" + lines(600),
			"a/fits_test.go":  "package a\n" + lines(599),
			"a/testdata/x.go": "package a\n" + lines(999),
		}, []string{"a/long.go: 401 lines, limit 400", "a/long_test.go: 601 lines, limit 600"}},
		{"function-length", map[string]string{
			"a/long.go":    long(81),
			"b/fits.go":    long(80),
			"c/literal.go": "package c\n\nvar f = func() {" + lines(80) + "}\n",
		}, []string{"a/long.go:3: f has 81 lines, limit 80", "c/literal.go:3: function literal has 81 lines"}},
		{"interface-size", map[string]string{
			"a/a.go": "package a\n\ntype Six interface{ A(); B(); C(); D(); E(); F() }\n",
			"b/b.go": "package b\n\nimport \"tallyman/c\"\n\ntype Sum interface{ c.Three; X(); Y(); Z() }\n" +
				"type Fits interface{ c.Three; X(); Y() }\ntype Set interface{ ~int | ~string }\n",
			"c/c.go": "package c\n\ntype Three interface{ A(); B(); C() }\n",
		}, []string{"a/a.go:3: interface of 6 methods, limit 5", "b/b.go:5: interface of 6 methods"}},
		{"parameters", map[string]string{
			"a/a.go": "package a\n\nfunc six(a, b, c int, d, e, f string) {}\nfunc five(a, b, c, d, e int) {}\n" +
				"func (r T) five(a, b, c, d, e int) {}\ntype T struct{}\n\ntype I interface {\n\tM(int, int, int, int, int, int)\n}\n",
		}, []string{"a/a.go:3: 6 parameters, limit 5", "a/a.go:9: 6 parameters"}},
	}
}

func docControls() []control {
	return []control{
		{"package-doc", map[string]string{
			"none/a.go":   "package none\n",
			"wrong/a.go":  "// This is wrong.\npackage wrong\n",
			"twice/a.go":  "// Package twice is one.\npackage twice\n",
			"twice/b.go":  "// Package twice is two.\npackage twice\n",
			"fine/a.go":   "// Package fine is fine.\npackage fine\n",
			"fine/b.go":   "package fine\n",
			"fine/a_x.go": "package fine_test\n",
			"cmd/x/m.go":  "// X does things.\npackage main\n",
		}, []string{"none: has no package comment", "wrong/a.go:1: does not start with", "twice: has 2 package comments"}},
		{"exported-doc", map[string]string{
			"a/a.go": `package a

func F() {}

// Wrong start.
func G() {}

// H has a comment.
func H() {}

type T struct{ Field int }

// A U is a type.
type U struct{}

func (U) M() {}

func (u) Hidden() {}

type u struct{}

const C = 1

// The group has one.
const (
	D = iota
	E
)

var (
	X = 1
	Y = 2 // Y says so itself.
	z = 3
)
`,
			"a/a_test.go": "package a\n\nfunc TestF() {}\n",
		}, []string{
			"a/a.go:3: F has no doc comment", "a/a.go:6: G does not start with its name", "a/a.go:11: T has no",
			"a/a.go:16: M has no", "a/a.go:22: const C has no", "a/a.go:31: var X has no",
		}},
	}
}

func globalControls() []control {
	return []control{
		{"no-init", map[string]string{
			"a/a.go": "package a\n\nfunc init() {}\n\ntype t struct{}\n\nfunc (t) init() {}\n",
		}, []string{"a/a.go:3: init function"}},
		{"no-mutable-globals", map[string]string{
			"a/a.go": `package a

import (
	"sync"
	"sync/atomic"

	"tallyman/b"
	"example.org/unknown"
)

var plain, indexed, field, pointer, counted, taken, ranged, elsewhere, deleted = unknown.Many()

var mu sync.Mutex

var n atomic.Int64

var fine = unknown.Fine()

var pool = sync.Pool{}

var lazy = sync.OnceValue(func() int { return 1 })

func f() {
	plain = unknown.X
	indexed[1] = 2
	field.x.y = 3
	*pointer = 4
	counted++
	unknown.Call(&taken)
	for ranged = range 3 {
	}
	delete(deleted, 1)
	b.Other = 1
	fine := fine
	fine = 2
	unknown.Use(fine, lazy(), &fine)
}
`,
			"a/b.go":     "package a\n\nfunc g(plain int) { elsewhere += 1; plain = 1 }\n",
			"cmd/x/m.go": "package main\n\nimport (\n\t\"example.org/lib\"\n\t\"tallyman/b\"\n)\n\nfunc f() {\n\tlib.Sorted = false\n\tb.Other = 1\n}\n",
		}, []string{
			"a/a.go:13: package variable mu is a sync.Mutex", "a/a.go:15: package variable n is a atomic.Int64",
			"a/a.go:24: package variable plain is assigned", "a/a.go:25: variable indexed", "a/a.go:26: variable field",
			"a/a.go:27: variable pointer", "a/a.go:28: variable counted is counted", "a/a.go:29: variable taken is handed out",
			"a/a.go:30: variable ranged", "a/a.go:32: variable deleted is written by delete",
			"a/a.go:33: b.Other of package tallyman/b is assigned", "a/b.go:3: variable elsewhere is assigned",
			"cmd/x/m.go:10: b.Other of package tallyman/b",
		}},
		{"injected-metrics", map[string]string{
			"a/a.go": "package a\n\nfunc f() {\n\tprometheus.MustRegister(x)\n\tr.MustRegister(x)\n\tuse(prometheus.DefaultRegisterer)\n}\n",
		}, []string{"a/a.go:4: prometheus.MustRegister", "a/a.go:6: prometheus.DefaultRegisterer"}},
	}
}

func importControls() []control {
	imports := func(pkg string, paths ...string) string {
		src := "package " + pkg + "\n"
		for _, p := range paths {
			src += fmt.Sprintf("import _ %q\n", p)
		}
		return src
	}
	return []control{
		{"layers", map[string]string{
			"schema/a.go":             imports("schema", "tallyman/sink", "fmt"),
			"schema/rows/a.go":        imports("rows", "tallyman/schema", "tallyman/schema/batch"),
			"source/a.go":             imports("source", "tallyman/loader", "tallyman/sink", "tallyman/source/journal"),
			"loader/commit/a.go":      imports("commit", "tallyman/sink", "tallyman/sink/postgres", "tallyman/source"),
			"sink/postgres/a.go":      imports("postgres", "tallyman/sink", "tallyman/schema", "tallyman/internal/sandbox"),
			"sink/postgres/a_test.go": imports("postgres", "tallyman/internal/sandbox", "tallyman/sink/sinktest"),
			"internal/service/a.go":   imports("service", "tallyman/schema"),
			"stray/a.go":              imports("stray", "tallyman/schema"),
			"cmd/tallyman/a.go":       imports("main", "tallyman/source", "tallyman/sink/postgres", "tallyman/internal/sandbox"),
		}, []string{
			"schema/a.go:2: schema may not import sink", "schema/rows/a.go:3: schema/rows may not import schema/batch",
			"source/a.go:2: source may not import loader", "source/a.go:3: source may not import sink",
			"loader/commit/a.go:3: may not import sink/postgres", "loader/commit/a.go:4: may not import source",
			"sink/postgres/a.go:4: may not import internal/sandbox", "internal/service/a.go:2: may not import schema",
			"stray/a.go:2: has no place",
		}},
		{"libraries", map[string]string{
			"loader/a.go":           imports("loader", "github.com/segmentio/kafka-go", "log/slog", "log"),
			"loader/a_test.go":      imports("loader", "github.com/segmentio/kafka-go", "github.com/twmb/franz-go/pkg/kfake"),
			"loader/consume/a.go":   imports("consume", "github.com/segmentio/kafka-go/protocol/fetch"),
			"schema/a.go":           imports("schema", "github.com/jackc/pgx/v5/pgconn", "github.com/prometheus/client_golang/prometheus/promauto"),
			"source/a.go":           imports("source", "github.com/cockroachdb/pebble/v2", "github.com/spf13/cobra"),
			"source/journal/a.go":   imports("journal", "github.com/cockroachdb/pebble/v2"),
			"internal/sandbox/a.go": imports("sandbox", "github.com/twmb/franz-go/pkg/kfake", "github.com/fergusstrange/embedded-postgres"),
		}, []string{
			"loader/a.go:2: loader imports github.com/segmentio/kafka-go, which is for", "loader/a.go:4: imports log, which is for nothing",
			"loader/a_test.go:3: imports github.com/twmb/franz-go/pkg/kfake", "schema/a.go:2: imports github.com/jackc/pgx/v5",
			"schema/a.go:3: promauto", "source/a.go:2: pebble", "source/a.go:3: cobra",
		}},
		{"top-level", map[string]string{
			"utils/a.go": "package utils\n", "main.go": "package main\n", "cmd/x/main.go": "package main\n", "bin/tallyman": "",
		}, []string{"utils: directory at the top level", "main.go: package at the top level"}},
	}
}

// wordControls puts its bad words together from parts: this file is part of
// the project and keeps the rules too.
func wordControls() []control {
	return []control{
		{"no-plan-talk", map[string]string{
			"a/a.go": "package a\n\n// See " + "issue 12.\n// As K1" + "2 says.\n// TO" + "DO: more.\n// Per DES" + "IGN section 4.\n" +
				"// RFC 9562, SQLSTATE P0001, p99 and partition 3 are fine.\nvar s = `#` + `12 is no comment, nor is KAFKA_BROKERS`\n",
			"a/b.sql":           "-- for #" + "7\nselect 1;\n",
			"README.md":         "It waits, as shared" + "/x says; in the next " + "issue more.\n",
			"a/testdata/x.yaml": "# TO" + "DO\n",
		}, []string{
			"a/a.go:3: say why", "a/a.go:4: say the fact", "a/a.go:5: do it, or", "a/a.go:6: name no document",
			"a/b.sql:1: say why", "README.md:1: ",
		}},
		{"no-machine-paths", map[string]string{
			"a/a.go":             "package a\n\nvar p = \"/ro" + "ot/x\"\n\nvar q = \"/network/rooted\"\n",
			"Makefile":           "x:\n\tcd /wo" + "rk/main\n",
			"a/testdata/out.txt": "open /ho" + "me/joe/x: no such file\n",
			"fetch.sh":           "curl https://proxy.go" + "lang.org/x\n",
		}, []string{"a/a.go:3: a path of", "Makefile:2: a path of", "a/testdata/out.txt:1: a path of", "fetch.sh:1: a registry's host"}},
		{"no-stubs", map[string]string{
			"a/a.go": "package a\n\nfunc f() { panic(\"stub\") }\nfunc g() { panic(\"unreachable\") }\n",
		}, []string{"a/a.go:3: finish it or delete it"}},
		{"error-wording", map[string]string{
			"a/a.go": "package a\n\nvar a = fmt.Errorf(\"failed to open: %w\", err)\nvar b = errors.New(\"open failed\")\n",
		}, []string{"a/a.go:3: name the step only"}},
	}
}
