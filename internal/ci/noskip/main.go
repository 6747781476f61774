// Noskip runs "go test" with the arguments given to it and fails if a test was
// skipped: what was not run says nothing.
//
// It prints what go test prints without -v: the output of tests that failed
// and a closing line for each package; then each skipped test with its reason.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	if err := run(".", os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs go test -json in a directory and judges what it reports.
func run(dir string, args []string, stdout, stderr io.Writer) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	skipped, err := follow(events, stdout)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	if len(skipped) > 0 {
		return fmt.Errorf("skipped (%d):\n%s", len(skipped), strings.Join(skipped, "\n"))
	}
	return nil
}

// event is a line of go test -json, as cmd/test2json documents it.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// follow copies to w what is worth reading and returns the tests that were
// skipped, each with its reason. An error is of reading.
func follow(r io.Reader, w io.Writer) (skipped []string, err error) {
	pending := map[[2]string][]string{} // the output of tests that run, by package and name
	for d := json.NewDecoder(r); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return skipped, nil
		} else if err != nil {
			return skipped, fmt.Errorf("read events: %w", err)
		}
		key := [2]string{e.Package, e.Test}
		switch {
		case e.Action == "build-output":
			fmt.Fprint(w, e.Output)
		case e.Action == "output" && e.Test != "":
			pending[key] = append(pending[key], e.Output)
		case e.Action == "output" && e.Output != "PASS\n":
			fmt.Fprint(w, e.Output)
		case e.Test == "" && e.Action == "fail":
			unfinished(w, pending, e.Package)
		case e.Test != "" && e.Action == "fail":
			fmt.Fprint(w, strings.Join(pending[key], ""))
			delete(pending, key)
		case e.Test != "" && e.Action == "skip":
			skipped = append(skipped, e.Package+" "+e.Test+": "+reason(pending[key]))
			delete(pending, key)
		case e.Test != "" && e.Action == "pass":
			delete(pending, key)
		}
	}
}

// unfinished prints the output of the tests that a package's end interrupted:
// there lies the panic, or what had not returned when the time was up.
func unfinished(w io.Writer, pending map[[2]string][]string, pkg string) {
	var keys [][2]string
	for key := range pending {
		if key[0] == pkg {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(a[1], b[1]) })
	for _, key := range keys {
		fmt.Fprint(w, strings.Join(pending[key], ""))
		delete(pending, key)
	}
}

// reason makes one line of what a skipped test said.
func reason(output []string) string {
	var kept []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, " ")
}
