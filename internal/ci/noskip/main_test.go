package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun runs go test on small modules whose only test ends in each way.
func TestRun(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		err  string   // part of the error; empty: none
		want []string // parts of the output
	}{
		"passes":  {`t.Log("quiet")`, "", []string{"ok  \tsmall"}},
		"fails":   {`t.Error("broken")`, "exit status 1", []string{"--- FAIL: TestIt", "broken", "FAIL\tsmall"}},
		"skips":   {`t.Skip("no broker")`, "skipped (1):\nsmall TestIt: a_test.go:6: no broker", []string{"ok  \tsmall"}},
		"subtest": {`t.Run("sub", func(t *testing.T) { t.Skip("no broker") })`, "small TestIt/sub: a_test.go:6: no broker", nil},
		"panics":  {`panic("torn")`, "exit status 1", []string{"panic: torn", "FAIL\tsmall"}},
		"broken":  {`undefined()`, "exit status 1", []string{"undefined: undefined", "FAIL\tsmall [build failed]"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "go.mod", "module small\n\ngo 1.26\n")
			write(t, dir, "a_test.go", "package small\n\nimport \"testing\"\n\nfunc TestIt(t *testing.T) {\n\t"+tt.body+"\n}\n")
			var out strings.Builder
			err := run(dir, []string{"./..."}, &out, &out)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), "quiet") {
				t.Errorf("output of a test that passed:\n%s", out.String())
			}
		})
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
