package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files")

// commands returns every command, the root first.
func commands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		all = append(all, commands(c)...)
	}
	return all
}

// Every command's help is a file, so that a change of it is seen in review.
func TestHelp(t *testing.T) {
	t.Parallel()
	root, _ := newRoot(&program{})
	want := map[string]bool{}
	for _, cmd := range commands(root) {
		if cmd.Hidden {
			continue
		}
		path := strings.Fields(cmd.CommandPath())
		name := filepath.Join("testdata", "help", strings.Join(path, "-")+".txt")
		want[name] = true
		got := succeed(t, nil, append(path[1:], "--help")...)
		if *update {
			if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Errorf("%v: go test ./cmd/tallyman -run TestHelp -update writes it", err)
		}
		if diff := cmp.Diff(string(text), got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	files, err := filepath.Glob(filepath.Join("testdata", "help", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want[f] {
			t.Errorf("%s: no command has this help", f)
		}
	}
}

// A command's help has what a reader looks for, and examples that are command
// lines of this program.
func TestHelpIsWhole(t *testing.T) {
	t.Parallel()
	root, _ := newRoot(&program{})
	for _, cmd := range commands(root) {
		if cmd.Hidden {
			continue
		}
		name := cmd.CommandPath()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short help is %q, want a phrase without a full stop", name, cmd.Short)
		}
		if cmd.Example == "" {
			t.Errorf("%s has no example", name)
		}
		for line := range strings.Lines(cmd.Example) {
			_, args, found := strings.Cut(strings.TrimSpace(line), "tallyman ")
			if !found {
				continue // another program's, to show where this one's output goes
			}
			checkExample(t, strings.TrimSpace(line), args)
		}
		for line := range strings.Lines(cmd.Long) {
			if len([]rune(line)) > 100 {
				t.Errorf("%s: a line is too wide for a terminal: %s", name, line)
			}
		}
	}
}

// checkExample parses an example as far as that goes without executing it.
func checkExample(t *testing.T, line, args string) {
	t.Helper()
	args, _, _ = strings.Cut(args, " |")
	args, _, _ = strings.Cut(args, " >")
	args, _, _ = strings.Cut(args, ")")
	root, _ := newRoot(&program{})
	cmd, rest, err := root.Find(strings.Fields(args))
	if err != nil || !cmd.Runnable() {
		t.Errorf("%s: not a command: %v", line, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: %v", line, err)
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

// A misspelt command is wrong usage, also below the first level, so that no
// script takes its help for success.
func TestUnknownCommand(t *testing.T) {
	t.Parallel()
	root, _ := newRoot(&program{})
	for _, cmd := range commands(root) {
		if !cmd.HasSubCommands() {
			continue
		}
		path := strings.Fields(cmd.CommandPath())
		r := invoke(t, nil, append(path[1:], "misspelt")...)
		if r.status != exitUsage || !strings.Contains(r.stderr, `unknown command "misspelt"`) {
			t.Errorf("%s misspelt: status %d\n%s", cmd.CommandPath(), r.status, r.stderr)
		}
	}
}
