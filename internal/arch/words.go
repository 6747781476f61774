package arch

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"strings"
)

// phrase is something that is never written, and what to do instead.
type phrase struct {
	pattern *regexp.Regexp
	instead string
}

// noPlanTalk finds comments that speak of tickets, plans and unfinished work
// instead of the code: these age, and a reader can't look them up.
func noPlanTalk(t *Tree, report Report) {
	phrases := []phrase{
		{regexp.MustCompile(`(?i)\b(issue|ticket|bug|pr|pull request)s? ?#?\d+\b`), "say why instead of naming a ticket"},
		{regexp.MustCompile(`(^|[\s(])#\d+\b`), "say why instead of naming a ticket"},
		{regexp.MustCompile(`\b[KPFB]\d{1,2}\b`), "say the fact instead of a note's number"},
		{regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`), "do it, or leave the comment out"},
		{regexp.MustCompile(`\b(DESIGN|FIELD|STYLE|JOBS|KAFKA)(\.md| section)`), "name no document that does not ship"},
		{regexp.MustCompile(`\bDESIGN\b`), "name no document that does not ship"},
		{regexp.MustCompile(`(^|[\s("'])/?shared/`), "name no document that does not ship"},
		{regexp.MustCompile(`(?i)\b(next|later|this|another) (issue|ticket|milestone|sprint)\b`), "say what the code does today"},
	}
	t.files(func(_ *Package, f *File) {
		for _, group := range f.Syntax.Comments {
			for _, c := range group.List {
				say(t.Fset.Position(c.Pos()), c.Text, phrases, report)
			}
		}
	})
	for _, text := range t.Texts {
		if commented(text.Path) {
			say(whole(text.Path), text.Content, phrases, report)
		}
	}
}

// commented says whether a file that is not Go is written by hand, with
// comments or prose. Test data and changelogs are neither.
func commented(p string) bool {
	if strings.Contains(p, "testdata/") {
		return false
	}
	switch path.Ext(p) {
	case ".sql", ".yml", ".yaml", ".sh", ".md", ".properties", ".xml":
		return true
	}
	switch path.Base(p) {
	case "Makefile", "Dockerfile", "run", ".gitignore":
		return true
	}
	return false
}

// noMachinePaths finds paths of the machine that somebody worked on, and the
// hosts of package registries, anywhere in the project's text.
func noMachinePaths(t *Tree, report Report) {
	phrases := []phrase{
		{regexp.MustCompile(`(^|[\s"'` + "`" + `=(:,])/(root|work|home/\w+|Users/\w+)(/|\b)`), "a path of one machine"},
		{regexp.MustCompile(`\b(proxy\.golang\.org|repo1?\.maven\.|registry\.npmjs\.|files\.pythonhosted\.)`), "a registry's host is for the tool's configuration"},
	}
	for _, text := range t.Texts {
		if path.Base(text.Path) != "go.sum" {
			say(whole(text.Path), text.Content, phrases, report)
		}
	}
}

// say reports each line of a text in which a phrase occurs, once.
func say(at token.Position, text string, phrases []phrase, report Report) {
	line := max(at.Line, 1)
	for l := range strings.Lines(text) {
		for _, p := range phrases {
			if found := p.pattern.FindString(l); found != "" {
				report(token.Position{Filename: at.Filename, Line: line}, "%q: %s", strings.TrimSpace(found), p.instead)
				break
			}
		}
		line++
	}
}

// noStubs finds functions that only claim to exist.
func noStubs(t *Tree, report Report) {
	stub := regexp.MustCompile(`(?i)\b(stub|not (yet )?implemented|unimplemented)\b`)
	t.calls(func(at token.Position, name, text string) {
		if name == "panic" && stub.MatchString(text) {
			report(at, "panic(%q): finish it or delete it", text)
		}
	})
}

// errorWording keeps errors to the step that failed: the reader knows that it did.
func errorWording(t *Tree, report Report) {
	filler := regexp.MustCompile(`(?i)\b(failed to|unable to|error while)\b`)
	t.calls(func(at token.Position, name, text string) {
		if name != "fmt.Errorf" && name != "errors.New" {
			return
		}
		if found := filler.FindString(text); found != "" {
			report(at, "error says %q: name the step only, as in \"open journal: …\"", found)
		}
	})
}

// calls visits every call whose first argument is a string literal.
func (t *Tree) calls(visit func(at token.Position, name, text string)) {
	t.files(func(_ *Package, f *File) {
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			visit(t.at(call), callee(call.Fun), unquote(lit.Value))
			return true
		})
	})
}

// callee returns the called function as it is written: "f" or "pkg.f".
func callee(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			return x.Name + "." + e.Sel.Name
		}
	}
	return ""
}
