package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child and the news of its end.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the child has ended and was waited for
	err  error         // what Wait said; read after done
}

// startProcess starts cmd so that it gets onDeath when this process dies.
//
// The kernel ties that signal to the thread that forked, not to the process, so
// one goroutine keeps its thread from the fork until the child has ended.
func startProcess(cmd *exec.Cmd, onDeath syscall.Signal) (*process, error) {
	setDeathSignal(cmd, onDeath)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends sig; that the child has ended already is no error.
func (p *process) signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// end sends sig, waits, and after patience sends last, which must be a signal
// that can't be put off.
func (p *process) end(sig syscall.Signal, patience time.Duration, last syscall.Signal) error {
	if err := p.signal(sig); err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	if err := p.signal(last); err != nil {
		return err
	}
	<-p.done
	return nil
}

// await calls ready every few milliseconds until it says yes, the child ends
// or ctx does.
func (p *process) await(ctx context.Context, ready func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready() {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("process ended: %w", errOr(p.err, errors.New("exit status 0")))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func errOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// tail returns the last few lines of a log, for an error message.
func tail(path string) string {
	const limit = 2000
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if len(b) > limit {
		b = b[len(b)-limit:]
	}
	return string(b)
}
