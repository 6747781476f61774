package arch

import (
	"go/ast"
	"strings"
)

// The limits on size: lines, methods and parameters that a reader can hold in mind.
const (
	maxFileLines     = 400
	maxTestFileLines = 600
	maxFunctionLines = 80
	maxMethods       = 5
	maxParameters    = 5
)

func fileLength(t *Tree, report Report) {
	t.files(func(_ *Package, f *File) {
		limit := maxFileLines
		if f.Test {
			limit = maxTestFileLines
		}
		if f.Lines > limit {
			report(whole(f.Path), "%d lines, limit %d", f.Lines, limit)
		}
	})
}

// functionLength counts from the line of "func" to the line of the closing
// brace, both included; the doc comment is not counted.
func functionLength(t *Tree, report Report) {
	t.files(func(_ *Package, f *File) {
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			var name string
			switch fn := n.(type) {
			case *ast.FuncDecl:
				name = fn.Name.Name
			case *ast.FuncLit:
				name = "function literal"
			default:
				return true
			}
			lines := t.Fset.Position(n.End()).Line - t.at(funcStart(n)).Line + 1
			if lines > maxFunctionLines {
				report(t.at(funcStart(n)), "%s has %d lines, limit %d", name, lines, maxFunctionLines)
			}
			return true
		})
	})
}

// funcStart returns the node at which a function's text starts, past its doc.
func funcStart(n ast.Node) ast.Node {
	if d, ok := n.(*ast.FuncDecl); ok {
		return d.Type
	}
	return n
}

// interfaceSize counts methods, those of embedded interfaces of this module
// included; an embedded interface from elsewhere counts as one.
func interfaceSize(t *Tree, report Report) {
	sizes := t.interfaces()
	t.files(func(p *Package, f *File) {
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			it, ok := n.(*ast.InterfaceType)
			if !ok {
				return true
			}
			if methods := sizes.count(p.Dir, it, 0); methods > maxMethods {
				report(t.at(it), "interface of %d methods, limit %d", methods, maxMethods)
			}
			return true
		})
	})
}

// interfaceIndex maps "directory name" to a declared interface.
type interfaceIndex map[string]*ast.InterfaceType

func (t *Tree) interfaces() interfaceIndex {
	index := interfaceIndex{}
	t.files(func(p *Package, f *File) {
		for _, d := range f.Syntax.Decls {
			for _, s := range specs(d) {
				if ts, ok := s.(*ast.TypeSpec); ok {
					if it, ok := ts.Type.(*ast.InterfaceType); ok {
						index[p.Dir+" "+ts.Name.Name] = it
					}
				}
			}
		}
	})
	return index
}

// count returns the number of methods of an interface that is written in dir.
func (x interfaceIndex) count(dir string, it *ast.InterfaceType, depth int) int {
	n := 0
	for _, m := range it.Methods.List {
		switch e := m.Type.(type) {
		case *ast.FuncType:
			n += len(m.Names)
		case *ast.Ident:
			n += x.embedded(dir, e.Name, depth)
		case *ast.SelectorExpr:
			n += x.embedded(x.dirOf(e), e.Sel.Name, depth)
		}
	}
	return n
}

// embedded returns the methods that the named interface brings in.
func (x interfaceIndex) embedded(dir, name string, depth int) int {
	it, ok := x[dir+" "+name]
	if !ok || depth > maxMethods {
		return 1
	}
	return x.count(dir, it, depth+1)
}

// dirOf finds the directory whose last element is the package in "package.Name".
func (x interfaceIndex) dirOf(e *ast.SelectorExpr) string {
	pkg, ok := e.X.(*ast.Ident)
	if !ok {
		return ""
	}
	for key := range x {
		dir, name, _ := strings.Cut(key, " ")
		if name == e.Sel.Name && (dir == pkg.Name || strings.HasSuffix(dir, "/"+pkg.Name)) {
			return dir
		}
	}
	return ""
}

// parameters counts those of every function type that is written out: functions,
// methods, literals, interface methods. A context counts, a receiver does not.
func parameters(t *Tree, report Report) {
	t.files(func(_ *Package, f *File) {
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			ft, ok := n.(*ast.FuncType)
			if !ok {
				return true
			}
			if count := ft.Params.NumFields(); count > maxParameters {
				report(t.at(ft.Params), "%d parameters, limit %d (use a struct)", count, maxParameters)
			}
			return true
		})
	})
}

// specs returns the specs of a general declaration; none for a function.
func specs(d ast.Decl) []ast.Spec {
	if g, ok := d.(*ast.GenDecl); ok {
		return g.Specs
	}
	return nil
}
