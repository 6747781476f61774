package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tallyman/sink"
)

// askEvery is how often the warehouse is asked.
const askEvery = 500 * time.Millisecond

// waitUntil asks again and again until nothing holds, and waits for outages of the
// warehouse, too. What still holds when the time is over is returned; 0: it is
// never over.
func waitUntil(ctx context.Context, timeout time.Duration, holds func(context.Context) (string, error)) (left string, err error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	left = "the warehouse was not asked yet"
	for {
		now, err := holds(ctx)
		switch {
		case err == nil && now == "":
			return "", nil
		case err == nil:
			left = now
		case ctx.Err() == nil && sink.ClassOf(err) != sink.Retryable:
			return "", err
		case ctx.Err() == nil:
			left = err.Error()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return left, nil
			}
			return "", ctx.Err()
		}
	}
}

// someLines is a text of at most ten lines, and how many more there would be.
type someLines struct {
	text strings.Builder
	n    int
}

const linesShown = 10

// add adds a line.
func (l *someLines) add(line string) {
	if l.n++; l.n <= linesShown {
		l.text.WriteString(line + "\n")
	}
}

// String returns the lines.
func (l *someLines) String() string {
	if l.n > linesShown {
		return fmt.Sprintf("%sand %d more", l.text.String(), l.n-linesShown)
	}
	return l.text.String()
}
