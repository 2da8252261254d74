package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A bar shows how far a long job is: in place on a terminal, else a line now and then.
type bar struct {
	w        io.Writer
	total    int
	what     string
	began    time.Time
	drawn    time.Time
	done     int
	terminal bool
}

func newBar(w io.Writer, total int, what string) *bar {
	now := time.Now()
	return &bar{w: w, total: total, what: what, began: now, drawn: now, terminal: isTerminal(w)}
}

func (b *bar) every() time.Duration {
	if b.terminal {
		return 200 * time.Millisecond
	}
	return 10 * time.Second
}

// tick comes when it is time to draw again, for jobs that wait.
func (b *bar) tick() <-chan time.Time { return time.After(b.every() - time.Since(b.drawn)) }

func (b *bar) set(done int) {
	b.done = done
	if time.Since(b.drawn) >= b.every() {
		b.draw()
	}
}

func (b *bar) draw() {
	b.drawn = time.Now()
	rate := float64(b.done) / time.Since(b.began).Seconds()
	text := fmt.Sprintf("%3d%%  %d of %d %s, %.0f/s", 100*b.done/max(b.total, 1), b.done, b.total, b.what, rate)
	if !b.terminal {
		fmt.Fprintln(b.w, text)
		return
	}
	const width = 30
	full := width * b.done / max(b.total, 1)
	fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat("-", width-full), text)
}

// end leaves the line as it is after the last step.
func (b *bar) end() {
	if b.terminal {
		b.draw()
		fmt.Fprintln(b.w)
	}
}
