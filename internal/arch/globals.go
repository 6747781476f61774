package arch

import (
	"go/ast"
	"go/token"
	"go/types"
	"path"
	"regexp"
	"strings"
)

func noInit(t *Tree, report Report) {
	t.files(func(_ *Package, f *File) {
		for _, d := range f.Syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				report(t.at(fn), "init function: build the value where it is used, or in main")
			}
		}
	})
}

// noMutableGlobals finds package-level variables that change after their
// declaration: assigned, counted up, written through an index, a field or a
// pointer, cleared, ranged into, or their address taken (which lets anybody
// do the rest), in this package or from another; and those whose type is
// nothing but state. Values that are lazily made once (sync.OnceValue) and
// sync.Pool, which holds nothing that a caller could notice, are no state.
// Tests are held to it like the rest. A program may set the process-wide
// switches of a library, since the process is its own.
func noMutableGlobals(t *Tree, report Report) {
	for _, p := range t.Packages {
		g := &globals{tree: t, report: report, info: p.resolve(t), program: p.Name == "main"}
		for _, f := range p.Files {
			g.stateful(f.Syntax)
			ast.Inspect(f.Syntax, func(n ast.Node) bool {
				g.visit(n)
				return true
			})
		}
	}
}

// byAddress says that a variable's address is taken. Another package's may be:
// that is how its functions are meant to be called.
const byAddress = "handed out by address"

type globals struct {
	tree    *Tree
	report  Report
	info    *types.Info
	program bool // the package is main
}

// resolve finds what the identifiers of a package stand for. Imports are
// hollow, so most expressions have no type, but names are all that matters.
func (p *Package) resolve(t *Tree) *types.Info {
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	var syntax []*ast.File
	for _, f := range p.Files {
		syntax = append(syntax, f.Syntax)
	}
	config := types.Config{Importer: hollow{}, Error: func(error) {}}
	// The errors are those of the hollow imports; a package that really
	// does not compile is the compiler's to report.
	_, _ = config.Check(path.Join(t.Module, p.Dir), t.Fset, syntax, info)
	return info
}

// hollow imports every package as an empty one, named as its path suggests.
type hollow struct{}

func (hollow) Import(importPath string) (*types.Package, error) {
	p := types.NewPackage(importPath, importName(importPath))
	p.MarkComplete()
	return p, nil
}

// importName guesses a package's name from its path.
func importName(importPath string) string {
	base := path.Base(importPath)
	if majorVersion(base) {
		base = path.Base(path.Dir(importPath))
	}
	base, _, _ = strings.Cut(base, ".")
	base = strings.TrimPrefix(base, "go-")
	return strings.TrimSuffix(base, "-go")
}

func majorVersion(s string) bool {
	digits, ok := strings.CutPrefix(s, "v")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// stateful reports declarations of variables whose type is state by itself.
func (g *globals) stateful(f *ast.File) {
	for _, d := range f.Decls {
		if gen, ok := d.(*ast.GenDecl); !ok || gen.Tok != token.VAR {
			continue
		}
		for _, s := range specs(d) {
			vs := s.(*ast.ValueSpec)
			if name := stateType(vs.Type); name != "" {
				g.report(g.tree.at(vs), "package variable %s is a %s: state belongs in a value", vs.Names[0].Name, name)
			}
		}
	}
}

// stateType returns the name of a type from sync or sync/atomic that exists to be changed.
func stateType(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.IndexExpr:
		e = x.X
	case *ast.ChanType:
		return "channel"
	}
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	pkg, ok := sel.X.(*ast.Ident)
	if !ok || pkg.Name != "atomic" && (pkg.Name != "sync" || sel.Sel.Name == "Pool") {
		return ""
	}
	return pkg.Name + "." + sel.Sel.Name
}

// visit reports the node if it changes a package variable.
func (g *globals) visit(n ast.Node) {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, e := range n.Lhs {
				g.changed(e, "assigned")
			}
		}
	case *ast.IncDecStmt:
		g.changed(n.X, "counted")
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			g.changed(n.Key, "assigned")
			g.changed(n.Value, "assigned")
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			g.changed(n.X, byAddress)
		}
	case *ast.CallExpr:
		if fn, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 {
			switch fn.Name {
			case "delete", "clear", "copy":
				g.changed(n.Args[0], "written by "+fn.Name)
			}
		}
	}
}

// changed reports an expression that is rooted in a package variable.
func (g *globals) changed(e ast.Expr, how string) {
	for {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.SelectorExpr:
			if g.foreign(x, how) {
				return
			}
			e = x.X
		case *ast.Ident:
			if v, ok := g.info.Uses[x].(*types.Var); ok && v.Parent() == v.Pkg().Scope() {
				g.report(g.tree.at(x), "package variable %s is %s", x.Name, how)
			}
			return
		default:
			return
		}
	}
}

// foreign reports an expression that is rooted in another package's variable,
// and says whether it is rooted in another package at all.
func (g *globals) foreign(x *ast.SelectorExpr, how string) bool {
	id, ok := x.X.(*ast.Ident)
	if !ok {
		return false
	}
	p, ok := g.info.Uses[id].(*types.PkgName)
	if !ok {
		return false
	}
	imported := p.Imported().Path()
	_, ours := g.tree.dirOf(imported)
	if how != byAddress && (ours || !g.program) {
		g.report(g.tree.at(x), "%s.%s of package %s is %s", id.Name, x.Sel.Name, imported, how)
	}
	return true
}

// injectedMetrics finds uses of client_golang's process-wide registry.
func injectedMetrics(t *Tree, report Report) {
	global := regexp.MustCompile(`^(prometheus\.(Default\w+|(Must)?Register|Unregister)|promhttp\.Handler)$`)
	t.files(func(_ *Package, f *File) {
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && global.MatchString(pkg.Name+"."+sel.Sel.Name) {
				report(t.at(sel), "%s.%s: metrics are registered with an injected Registerer", pkg.Name, sel.Sel.Name)
			}
			return true
		})
	})
}
