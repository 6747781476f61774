// Package arch holds the rules that the module's own source keeps: sizes,
// documentation, globals, who may import whom, and what comments never say.
//
// A rule is a function from the parsed tree to findings, so that one test can
// run all of them over the module and another can show, with a few lines of
// source that break it, that each rule sees what it is there to see. The rules
// need nothing beyond the standard library and read the tree as it is on disk:
// imports are not resolved, so a package that does not compile is judged too.
package arch

import (
	"cmp"
	"fmt"
	"go/token"
	"slices"
)

// Finding is one place that breaks a rule.
type Finding struct {
	Rule string
	Path string // slash-separated, relative to the module's root
	Line int    // from 1; 0: the file or directory as a whole
	Text string // what is wrong, and the limit if there is one
}

// String returns "path:line: text (rule)".
func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s (%s)", f.Path, f.Text, f.Rule)
	}
	return fmt.Sprintf("%s:%d: %s (%s)", f.Path, f.Line, f.Text, f.Rule)
}

// Rule is one thing that the source keeps to.
type Rule struct {
	Name  string
	Check func(t *Tree, report Report)
}

// Report takes a finding of the rule that is being checked.
type Report func(at token.Position, format string, args ...any)

// Rules returns every rule, in the order in which they are checked.
func Rules() []Rule {
	return []Rule{
		{"file-length", fileLength},
		{"function-length", functionLength},
		{"interface-size", interfaceSize},
		{"parameters", parameters},
		{"package-doc", packageDoc},
		{"exported-doc", exportedDoc},
		{"no-init", noInit},
		{"no-mutable-globals", noMutableGlobals},
		{"injected-metrics", injectedMetrics},
		{"layers", layers},
		{"libraries", libraries},
		{"top-level", topLevel},
		{"no-plan-talk", noPlanTalk},
		{"no-machine-paths", noMachinePaths},
		{"no-stubs", noStubs},
		{"error-wording", errorWording},
	}
}

// Check applies the rules to the tree and returns what they found, by path and line.
func Check(t *Tree, rules []Rule) []Finding {
	var found []Finding
	for _, r := range rules {
		r.Check(t, func(at token.Position, format string, args ...any) {
			found = append(found, Finding{
				Rule: r.Name,
				Path: at.Filename,
				Line: at.Line,
				Text: fmt.Sprintf(format, args...),
			})
		})
	}
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	return found
}
