package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// lineEvery is how often progress is told where no bar can be drawn.
const lineEvery = 3 * time.Second

// progress shows how far long work has come: bars on a terminal, a line every
// few seconds elsewhere. It is safe for concurrent use.
type progress struct {
	w    io.Writer
	bars *mpb.Progress // nil: not a terminal

	mu   sync.Mutex
	next time.Time // when the next line is due
	all  []*bar
}

// bar is one thing that is counted.
type bar struct {
	progress    *progress
	name        string
	total, have int64
	drawn       *mpb.Bar
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, next: time.Now().Add(lineEvery)}
	if isTerminal(w) {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
	}
	return p
}

// isTerminal says whether a person is at the other end of a stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// add starts to count something up to total.
func (p *progress) add(name string, total int64) *bar {
	b := &bar{progress: p, name: name, total: total}
	if p.bars != nil {
		b.drawn = p.bars.AddBar(total,
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersNoUnit("%d / %d", decor.WCSyncSpace)),
			mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace)))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, b)
	return b
}

// set says that n of the total are done.
func (b *bar) set(n int64) {
	p := b.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	b.have = n
	if b.drawn != nil {
		b.drawn.SetCurrent(n)
		return
	}
	if now := time.Now(); now.After(p.next) {
		p.next = now.Add(lineEvery)
		p.line()
	}
}

// line prints all counts in one line.
func (p *progress) line() {
	for i, b := range p.all {
		if i > 0 {
			fmt.Fprint(p.w, ", ")
		}
		fmt.Fprintf(p.w, "%s %d of %d", b.name, b.have, b.total)
	}
	fmt.Fprintln(p.w)
}

// note prints a line of its own, above the bars.
func (p *progress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars != nil {
		// The line goes through the bars, which would else be drawn over it.
		_, _ = p.bars.Write([]byte(text + "\n"))
		return
	}
	fmt.Fprintln(p.w, text)
}

// end leaves the bars as they stand.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars == nil {
		return
	}
	for _, b := range p.all {
		b.drawn.Abort(false)
	}
	p.bars.Wait()
	p.bars = nil
}
