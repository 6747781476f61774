package arch

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// packageDoc asks for one package comment in every package, in Go's form.
// External tests ("x_test") share the directory's.
func packageDoc(t *Tree, report Report) {
	for _, p := range t.Packages {
		if strings.HasSuffix(p.Name, "_test") {
			continue
		}
		docs := 0
		for _, f := range p.Files {
			text := f.Syntax.Doc.Text()
			if text == "" {
				continue
			}
			docs++
			if p.Name != "main" && !strings.HasPrefix(text, "Package "+p.Name+" ") {
				report(t.at(f.Syntax.Doc), "package comment does not start with %q", "Package "+p.Name)
			}
		}
		switch {
		case docs == 0:
			report(whole(p.Dir), "package %s has no package comment", p.Name)
		case docs > 1:
			report(whole(p.Dir), "package %s has %d package comments, limit 1", p.Name, docs)
		}
	}
}

// exportedDoc asks for a doc comment on every exported name outside of tests:
// functions, methods of exported types, types, constants and variables (for
// the last two the comment of their group will do). One of a function or type
// starts with its name, as godoc shows it.
func exportedDoc(t *Tree, report Report) {
	t.files(func(_ *Package, f *File) {
		if f.Test {
			return
		}
		for _, d := range f.Syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) {
					t.named(d, d.Name, d.Doc, report)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					t.specDoc(d, s, report)
				}
			}
		}
	})
}

func (t *Tree) specDoc(d *ast.GenDecl, s ast.Spec, report Report) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		doc := s.Doc
		if doc == nil && !d.Lparen.IsValid() {
			doc = d.Doc
		}
		if s.Name.IsExported() {
			t.named(s, s.Name, doc, report)
		}
	case *ast.ValueSpec:
		exported := slices.IndexFunc(s.Names, (*ast.Ident).IsExported)
		if exported >= 0 && s.Doc.Text()+s.Comment.Text()+d.Doc.Text() == "" {
			report(t.at(s), "%s %s has no doc comment, nor has its group", d.Tok, s.Names[exported].Name)
		}
	}
}

// named reports a doc comment that is absent or does not start with the name.
func (t *Tree) named(n ast.Node, name *ast.Ident, doc *ast.CommentGroup, report Report) {
	at := token.Position{Filename: t.at(n).Filename, Line: t.at(name).Line}
	text := doc.Text()
	if text == "" {
		report(at, "%s has no doc comment", name.Name)
		return
	}
	for _, article := range []string{"A ", "An ", "The "} {
		text = strings.TrimPrefix(text, article)
	}
	first, _, _ := strings.Cut(strings.Join(strings.Fields(text), " "), " ")
	if strings.TrimSuffix(strings.TrimRight(first, ".,:;"), "'s") != name.Name {
		report(at, "doc comment of %s does not start with its name", name.Name)
	}
}

// exportedReceiver says whether a function is no method, or one of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	e := d.Recv.List[0].Type
	for {
		switch r := e.(type) {
		case *ast.StarExpr:
			e = r.X
		case *ast.IndexExpr:
			e = r.X
		case *ast.IndexListExpr:
			e = r.X
		case *ast.Ident:
			return r.IsExported()
		default:
			return true
		}
	}
}
