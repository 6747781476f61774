package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a child that runs the same program as this one. It is known by its
// id alone and dies with this process where the system can arrange that.
type process struct {
	name   string
	finite bool   // it ends by itself, when its work is done
	log    string // where its standard error goes
	cmd    *exec.Cmd
	stdin  io.WriteCloser // nil unless asked for
	stdout io.ReadCloser  // nil unless asked for
	done   chan struct{}  // closed when it has ended
	err    error          // how it ended; read after done
}

// launch describes a process to start.
type launch struct {
	name   string   // names the log file
	finite bool     // see process
	args   []string // after the program's name
	env    []string // whole
	pipes  bool     // connect stdin and stdout; else stdout goes to the log
}

// start starts a process whose log is kept in the demo's directory.
func (d *Demo) start(l launch) (*process, error) {
	p := &process{name: l.name, finite: l.finite, log: filepath.Join(d.logs, l.name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", l.name, err)
	}
	defer func() { _ = log.Close() }()
	p.cmd = exec.Command(d.config.Executable, l.args...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr, p.cmd.Stdout = l.env, d.dir, log, log
	if d.guest != nil {
		p.cmd.Dir = "" // where the user is, and what his configuration names
		p.cmd.Args = append(p.cmd.Args, d.config.Servers.Args...)
	}
	if l.pipes {
		p.cmd.Stdout = nil
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("start %s: %w", l.name, err)
		}
		if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
			return nil, fmt.Errorf("start %s: %w", l.name, err)
		}
	}
	p.cmd.SysProcAttr = attributes()

	started := make(chan error)
	go func() {
		// The kernel ties a child's death signal to the thread that started it,
		// so that thread stays until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", l.name, err)
	}
	return p, nil
}

// wait waits for the end without closing the pipes, whose readers may be behind.
func (p *process) wait() error {
	state, err := p.cmd.Process.Wait()
	if err == nil && !state.Success() {
		err = &exec.ExitError{ProcessState: state}
	}
	return err
}

// pid returns the process id.
func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the process to end, waits for it, and kills it if it takes longer than patience.
func (p *process) stop(patience time.Duration) error {
	if p.stdin != nil {
		_ = p.stdin.Close()
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s didn't end within %v of SIGTERM", p.name, patience)
	}
	return p.ended()
}

// kill ends the process at once and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// ended returns how an ended process ended, with the last line of its log.
func (p *process) ended() error {
	if p.err == nil {
		return nil
	}
	if last := lastLine(p.log); last != "" {
		return fmt.Errorf("%s: %w: %s", p.name, p.err, last)
	}
	return fmt.Errorf("%s: %w", p.name, p.err)
}

// running says whether the process hasn't ended yet.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// command runs a process to its end.
func (d *Demo) command(ctx context.Context, name string, args ...string) error {
	p, err := d.start(launch{name: name, args: args, env: d.environ()})
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.ended()
	case <-ctx.Done():
		p.kill()
		return ctx.Err()
	case <-time.After(commandLimit):
		p.kill()
		return fmt.Errorf("%s: %w after %v", name, errors.New("no end"), commandLimit)
	}
}

// commandLimit is how long a command such as init may take.
const commandLimit = 30 * time.Second

func lastLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
