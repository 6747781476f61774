// Readme runs the shell commands of a Markdown file, so that what it tells a
// reader to type is known to work.
//
//	go run ./internal/ci/readme README.md
//
// Each block fenced as "sh" is a script for bash -e, run in the file's
// directory, in the file's order, until one fails. A block fenced as
// "sh deploy" needs servers of the reader's own and is left out.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// blockLimit bounds the run of one block.
const blockLimit = 10 * time.Minute

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: readme FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs the blocks of the named file; what they print goes to out.
func run(name string, out io.Writer) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	found, err := blocks(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(found) == 0 {
		return fmt.Errorf("%s: no block to run", name)
	}
	for _, b := range found {
		fmt.Fprintf(out, "%s:%d:\n%s", name, b.line, b.script)
		if err := b.run(filepath.Dir(name), out); err != nil {
			return fmt.Errorf("%s:%d: %w", name, b.line, err)
		}
	}
	return nil
}

// block is the text between two fences.
type block struct {
	line   int // of the opening fence, from 1
	script string
}

// blocks returns the blocks that are to be run.
func blocks(text string) ([]block, error) {
	var found []block
	var open *block
	info, number := "", 0
	for line := range strings.Lines(text) {
		number++
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && open == nil:
			open, info = &block{line: number}, strings.TrimSpace(fence)
		case isFence:
			if info == "sh" {
				found = append(found, *open)
			}
			open = nil
		case open != nil:
			open.script += line
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: fence is never closed", open.line)
	}
	return found, nil
}

// run runs the block and ends whatever it left running.
func (b block) run(dir string, out io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), blockLimit,
		fmt.Errorf("took longer than %s", blockLimit))
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.script)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	group := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = group
	cmd.WaitDelay = time.Second // for output that a stray process still holds
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if cmd.Process != nil {
		_ = group() // none left is the rule
	}
	return err
}
