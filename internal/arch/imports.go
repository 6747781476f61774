package arch

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// layer says what the packages at or below a directory may import of this module.
// Entries are exact directories, or "dir/..." for a directory and all below it.
type layer struct {
	dir  string   // the longest match decides
	may  []string // besides what lies in the same directory
	test []string // what tests may import besides
}

// arrows returns the one direction in which imports go. What several layers
// may use (internal) is listed in each, so that a line can be read alone.
func arrows() []layer {
	sandbox := "internal/sandbox/..."
	return []layer{
		{dir: "schema", test: []string{sandbox}},
		{dir: "schema/batch", may: []string{"schema"}, test: []string{sandbox}},
		{dir: "schema/rows", may: []string{"schema"}, test: []string{sandbox}},
		{dir: "schema/ddl", may: []string{"schema"}, test: []string{sandbox}},
		{dir: "source", may: []string{"schema/...", "source/...", "internal/kafkaconn", "internal/service", "internal/bearer"}, test: []string{sandbox}},
		{dir: "loader", may: []string{"schema/...", "loader/...", "sink", "internal/kafkaconn", "internal/service"}, test: []string{sandbox}},
		{dir: "sink", may: []string{"schema/..."}, test: []string{sandbox}},
		{dir: "sink/sinktest", may: []string{"schema/...", "sink", "internal/sandbox/..."}},
		{dir: "sink/postgres", may: []string{"schema/...", "sink", "sink/postgres/...", "internal/service"}, test: []string{sandbox, "sink/sinktest"}},
		{dir: "internal", test: []string{sandbox}},
		{dir: "internal/sandbox", may: []string{"internal/sandbox/...", "internal/kafkaconn", "internal/service"}},
		{dir: "deploy"},
		{dir: "examples", may: []string{"schema/...", "source"}}, // what others can import
		{dir: "cmd", may: []string{"cmd/...", "schema/...", "source/...", "loader/...", "sink/...", "internal/..."}},
	}
}

func layers(t *Tree, report Report) {
	table := arrows()
	t.files(func(p *Package, f *File) {
		l := layerOf(table, p.Dir)
		for _, spec := range f.Syntax.Imports {
			dir, ours := t.dirOf(unquote(spec.Path.Value))
			if !ours || dir == p.Dir {
				continue
			}
			if l == nil {
				report(t.at(spec), "directory %s has no place in the table of layers", p.Dir)
				continue
			}
			if !matches(l.may, dir) && (!f.Test || !matches(l.test, dir)) {
				report(t.at(spec), "%s may not import %s", p.Dir, dir)
			}
		}
	})
}

// layerOf returns the most specific layer of a directory; nil if it has none.
func layerOf(table []layer, dir string) *layer {
	var best *layer
	for i, l := range table {
		if within(dir, l.dir) && (best == nil || len(l.dir) > len(best.dir)) {
			best = &table[i]
		}
	}
	return best
}

// library says which directories may import an outside module or package, and
// everything below it.
type library struct {
	path string
	only bool     // the package itself, not what is below its path
	in   []string // exact, or with "/..."; none: nowhere
	test bool     // tests may import it anywhere
}

// fences returns where each library that has its place may be used.
func fences() []library {
	return []library{
		{path: "github.com/segmentio/kafka-go", test: true, in: []string{
			"source/publish", "source/replay", "loader/consume", "loader/receipt", "internal/kafkaconn", "cmd/...",
		}},
		{path: "github.com/jackc/pgx/v5", test: true, in: []string{"sink/postgres/...", "loader/job/...", "internal/sandbox/...", "cmd/..."}},
		{path: "github.com/danielgtaylor/huma/v2", in: []string{"loader/job/api"}},
		{path: "github.com/pressly/goose/v3", in: []string{"sink/postgres/..."}},
		{path: "github.com/twmb/franz-go/pkg/kfake", in: []string{"internal/sandbox/..."}},
		{path: "github.com/twmb/franz-go", test: true, in: []string{"internal/sandbox/..."}},
		{path: "github.com/fergusstrange/embedded-postgres", in: []string{"internal/sandbox/..."}},
		{path: "github.com/cockroachdb/pebble/v2", test: true, in: []string{"source/journal"}},
		{path: "github.com/valyala/fastjson", test: true, in: []string{"schema/rows"}},
		{path: "github.com/spf13/cobra", in: []string{"cmd/..."}},
		{path: "github.com/spf13/pflag", in: []string{"cmd/..."}},
		{path: "github.com/knadh/koanf", in: []string{"cmd/..."}},
		{path: "github.com/olekukonko/tablewriter", in: []string{"cmd/..."}},
		{path: "github.com/vbauerster/mpb/v8", in: []string{"cmd/..."}},
		{path: "github.com/compose-spec/compose-go/v2", test: true},
		{path: "github.com/Shopify/toxiproxy/v2", test: true, in: []string{"internal/torture/..."}},
		{path: "github.com/prometheus/client_golang/prometheus/promauto"},
		{path: "log", only: true},
	}
}

func libraries(t *Tree, report Report) {
	table := fences()
	t.files(func(p *Package, f *File) {
		for _, spec := range f.Syntax.Imports {
			l := libraryOf(table, unquote(spec.Path.Value))
			if l == nil || f.Test && l.test || matches(l.in, p.Dir) {
				continue
			}
			where := strings.Join(l.in, ", ")
			switch {
			case where == "" && l.test:
				where = "tests"
			case where == "":
				where = "nothing"
			case l.test:
				where += ", tests"
			}
			report(t.at(spec), "%s imports %s, which is for %s", p.Dir, l.path, where)
		}
	})
}

// libraryOf returns the most specific entry for an import path; nil if it has none.
func libraryOf(table []library, imported string) *library {
	var best *library
	for i, l := range table {
		covers := imported == l.path || !l.only && within(imported, l.path)
		if covers && (best == nil || len(l.path) > len(best.path)) {
			best = &table[i]
		}
	}
	return best
}

// topLevel keeps the list of directories at the root to what the design knows.
func topLevel(t *Tree, report Report) {
	allowed := []string{".ci", "cmd", "deploy", "examples", "internal", "loader", "schema", "sink", "source"}
	for _, dir := range t.Dirs {
		if !slices.Contains(allowed, dir) {
			report(whole(dir), "directory at the top level, where only %s belong", strings.Join(allowed, ", "))
		}
	}
	for _, p := range t.Packages {
		if p.Dir == "." {
			report(whole(p.Files[0].Path), "package at the top level, which has none")
		}
	}
}

// unquote returns the value of a string literal; the parser has checked it.
func unquote(literal string) string {
	p, err := strconv.Unquote(literal)
	if err != nil {
		return literal
	}
	return p
}

// dirOf returns the directory of an import path of this module.
func (t *Tree) dirOf(imported string) (string, bool) {
	if imported == t.Module {
		return ".", true
	}
	return strings.CutPrefix(imported, t.Module+"/")
}

// within says whether a slash-separated path is base or lies below it.
func within(p, base string) bool {
	return p == base || strings.HasPrefix(p, base+"/")
}

// matches says whether a directory is in a list of directories and "dir/..." patterns.
func matches(list []string, dir string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		if base, ok := strings.CutSuffix(pattern, "/..."); ok {
			return within(path.Clean(dir), base)
		}
		return pattern == dir
	})
}
