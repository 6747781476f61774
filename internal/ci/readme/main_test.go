package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		err  string // part of the error; empty: none
		want string // the output's lines that start with "ran"
	}{
		"in order":       {fence("sh", "echo ran 1") + "and\n" + fence("sh", "echo ran 2"), "", "ran 1\nran 2\n"},
		"others skipped": {fence("sh deploy", "echo ran 1") + fence("text", "x") + fence("", "y") + fence("sh", "echo ran 2"), "", "ran 2\n"},
		"stops":          {fence("sh", "echo ran 1\nfalse\necho ran 2") + fence("sh", "echo ran 3"), ".md:1: exit status 1", "ran 1\n"},
		"pipe fails":     {"\n" + fence("sh", "false | echo ran 1"), ".md:2: exit status 1", "ran 1\n"},
		"unset variable": {fence("sh", "echo ran $NEVER_SET_BY_ANYBODY"), "exit status 1", ""},
		"no input":       {fence("sh", "read -r line || echo ran without"), "", "ran without\n"},
		"nothing to run": {fence("text", "x"), "no block to run", ""},
		"open fence":     {"```sh\necho ran\n", "line 1: fence is never closed", ""},
		"its directory":  {fence("sh", "echo ran in $(ls)"), "", "ran in guide.md\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "guide.md")
			if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			err := run(file, &out)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			got := ""
			for line := range strings.Lines(out.String()) {
				if strings.HasPrefix(line, "ran") {
					got += line
				}
			}
			if got != tt.want {
				t.Errorf("ran %q, want %q", got, tt.want)
			}
		})
	}
}

func fence(info, script string) string { return "```" + info + "\n" + script + "\n```\n" }
