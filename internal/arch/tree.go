package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// maxText bounds the size of a file that is looked at for words, in bytes.
const maxText = 1 << 20

// Tree is a module's source: every Go file parsed, every other text file read.
type Tree struct {
	Module   string // the module path, from go.mod
	Fset     *token.FileSet
	Packages []*Package // by directory, then name
	Texts    []*Text    // by path; Go files too
	Dirs     []string   // the directories at the top level
}

// Package is the Go files of one directory that share a package clause, so
// that a package and its external tests are two.
type Package struct {
	Dir   string // slash-separated, relative to the root; ".": the root
	Name  string
	Files []*File
}

// File is one parsed Go file.
type File struct {
	Path   string
	Test   bool // its name ends in _test.go
	Lines  int
	Syntax *ast.File
}

// Text is a file that is not binary.
type Text struct {
	Path    string
	Content string
}

// Load reads the tree of a module. Directories that the go command ignores are
// left out of Packages (testdata, names with a leading dot or underscore), and
// what builds leave behind is left out altogether.
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{Fset: token.NewFileSet()}
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, fmt.Errorf("read go.mod: %w", err)
	}
	t.Module = modulePath(string(mod))
	if err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p == ".":
			return nil
		case d.IsDir() && left(p):
			return fs.SkipDir
		case left(p): // in a worktree .git is a file
			return nil
		case d.IsDir():
			if !strings.Contains(p, "/") {
				t.Dirs = append(t.Dirs, p)
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		return t.add(fsys, p)
	}); err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	slices.SortFunc(t.Packages, func(a, b *Package) int {
		return strings.Compare(a.Dir+" "+a.Name, b.Dir+" "+b.Name)
	})
	return t, nil
}

// left says that a path is not part of the source: the repository's own
// administration and the directories that .gitignore names.
func left(p string) bool {
	return p == ".git" || p == "bin" || p == "out"
}

func modulePath(mod string) string {
	for line := range strings.Lines(mod) {
		if name, ok := strings.CutPrefix(line, "module "); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// add reads one file into the tree.
func (t *Tree) add(fsys fs.FS, p string) error {
	info, err := fs.Stat(fsys, p)
	if err != nil || info.Size() > maxText {
		return err
	}
	src, err := fs.ReadFile(fsys, p)
	if err != nil {
		return err
	}
	if bytes.IndexByte(src, 0) >= 0 {
		return nil
	}
	t.Texts = append(t.Texts, &Text{Path: p, Content: string(src)})
	if path.Ext(p) != ".go" || ignoredByGo(p) {
		return nil
	}
	syntax, err := parser.ParseFile(t.Fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	pkg := t.pkg(path.Dir(p), syntax.Name.Name)
	pkg.Files = append(pkg.Files, &File{
		Path:   p,
		Test:   strings.HasSuffix(p, "_test.go"),
		Lines:  bytes.Count(src, []byte("\n")),
		Syntax: syntax,
	})
	return nil
}

func (t *Tree) pkg(dir, name string) *Package {
	for _, p := range t.Packages {
		if p.Dir == dir && p.Name == name {
			return p
		}
	}
	p := &Package{Dir: dir, Name: name}
	t.Packages = append(t.Packages, p)
	return p
}

// ignoredByGo says whether the go command skips the path for its name.
func ignoredByGo(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == "testdata" || strings.HasPrefix(part, ".") || strings.HasPrefix(part, "_") {
			return true
		}
	}
	return false
}

// files calls visit with every Go file of the tree and its package.
func (t *Tree) files(visit func(p *Package, f *File)) {
	for _, p := range t.Packages {
		for _, f := range p.Files {
			visit(p, f)
		}
	}
}

// at returns the position of a node for a report.
func (t *Tree) at(n ast.Node) token.Position { return t.Fset.Position(n.Pos()) }

// whole returns the position that stands for a file or directory as a whole.
func whole(p string) token.Position { return token.Position{Filename: p} }
