package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"dray"
	"dray/client"
)

type replayCmd struct {
	Files []string `arg:"" name:"file" help:"CSV, may be gzipped."`
	clientFlags
	Speed      pace     `help:"So many times as fast as recorded; 0 or max is as fast as possible." default:"1"`
	Timestamps string   `help:"shift: positions are of now, as they are sent. keep: of when they were recorded; what is older than the location TTL goes into trails but makes nobody live." enum:"shift,keep" default:"shift"`
	Attribute  []string `help:"Column to send as an attribute." placeholder:"COLUMN"`
}

// A pace is how many times as fast as it was recorded; 0 is as fast as possible.
type pace float64

func (p *pace) UnmarshalText(text []byte) error {
	if string(text) == "max" {
		*p = 0
		return nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= 0 && f <= 1e9) {
		return fmt.Errorf("%q is neither a number, 0 or more, nor max", text)
	}
	*p = pace(f)
	return nil
}

// Validate checks what kong can't.
func (c *replayCmd) Validate() error {
	for _, file := range c.Files {
		info, err := os.Stat(file)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", file, errors.Unwrap(err)) // the name is said already
		case info.IsDir():
			return fmt.Errorf("%s: it is a directory, not a file", file)
		}
	}
	return nil
}

// Help is shown by dray replay --help.
func (*replayCmd) Help() string {
	return `The first line of a file names its columns, in any order and case:
  driver, driver_id, vehicle_id or vehicle   an id; without any of them, id
  timestamp or time                          ISO 8601 with an offset (without: UTC), or milliseconds since 1970
  latitude or lat; longitude, lon or lng     WGS 84 degrees
  speed (m/s), heading or bearing (degrees), accuracy, altitude (m): where known
Rows need no order. Left out, and counted: rows at 0,0, rows with a driver and timestamp seen
before, rows that can't be read. A speed of 113.9952 (255 mph) means unknown. Several files
play side by side, each from its own first row.

The exit code is 1 if the server refused a position, 130 if Ctrl-C ended it early.`
}

// Run sends every row and waits until all are acknowledged.
func (c *replayCmd) Run(a *app) error {
	t, err := readTraces(c.Files, c.Attribute)
	if err != nil {
		return err
	}
	r := &replay{trace: t, speed: float64(c.Speed), app: a}
	cl, err := c.dial(a.ctx, client.Config{Logger: discard, Refused: r.refuse, OnStatus: func(s client.Status) {
		if s.RetryIn > 0 {
			fmt.Fprintf(a.stderr, "dray: %v; next attempt in %v\n", s.Err, s.RetryIn.Round(time.Millisecond))
		}
	}})
	if err != nil {
		return interrupted(a.ctx, err)
	}
	defer cl.Close()
	start := time.Now()
	if c.Timestamps == "shift" {
		t.live(start, r.speed)
	}
	bar := newBar(a.stderr, len(t.rows), "positions")
	err = r.run(a.ctx, cl, start, bar)
	if err == nil {
		err = cl.Flush(a.ctx)
	}
	bar.end()
	pending := cl.Pending()
	if e := cl.Close(); err == nil { // a refusal may still be on its way to r after Flush
		err = e
	}
	fmt.Fprintf(a.stdout, "%s sent in %v, %d refused%s; dropped from the files: %s\n",
		count(r.sent-pending, "position"), time.Since(start).Round(10*time.Millisecond), r.refused.Load(), r.supersededText(), t.droppedText())
	if newest := t.newest(); c.Timestamps == "keep" && start.Sub(newest) > usualTTL {
		fmt.Fprintf(a.stdout, "The newest was recorded at %s. All that are older than the server's location TTL (%v unless it was set) make nobody live: only trails can hold them.\n",
			newest.UTC().Format(time.RFC3339), usualTTL)
	}
	if err != nil {
		return interrupted(a.ctx, err)
	}
	if n := r.refused.Load(); n > 0 {
		return fmt.Errorf("%d positions were refused, the first because: %w", n, *r.first.Load())
	}
	return nil
}

// usualTTL is a server's location TTL where it was not set to another.
const usualTTL = time.Minute

func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// A replay is one trace on its way.
type replay struct {
	app   *app
	trace *trace
	speed float64
	sent  int
	// superseded is how many the server had a newer or equal one of, which may have come in
	// the same batch; it is told of batches only.
	superseded int
	single     bool // some went one by one
	refused    atomic.Int64
	first      atomic.Pointer[error] // why the first was refused
}

func (r *replay) supersededText() string {
	switch {
	case r.superseded == 0:
		return ""
	case r.single:
		return fmt.Sprintf(", at least %d superseded by newer ones", r.superseded)
	}
	return fmt.Sprintf(", %d superseded by newer ones", r.superseded)
}

func (r *replay) refuse(x client.Refusal) {
	err := fmt.Errorf("%s: %w", x.Position.Driver, x.Err)
	r.first.CompareAndSwap(nil, &err)
	r.refused.Add(1)
}

// few is how many rows may be due at once to go one by one; more go as a batch.
const few = 16

// run sends rows as they fall due.
func (r *replay) run(ctx context.Context, cl *client.Client, start time.Time, bar *bar) error {
	rows := r.trace.rows
	for len(rows) > 0 {
		n := r.due(rows, time.Since(start))
		if n == 0 {
			select {
			case <-time.After(time.Duration(float64(rows[0].offset)/r.speed) - time.Since(start)):
			case <-bar.tick():
				bar.set(r.sent)
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if err := r.send(ctx, cl, rows[:n]); err != nil {
			return err
		}
		r.sent += n
		rows = rows[n:]
		bar.set(r.sent)
	}
	return nil
}

// due is how many of rows are to be sent now, a batch at most.
func (r *replay) due(rows []row, since time.Duration) int {
	most := min(len(rows), dray.MaxPositions)
	if r.speed == 0 {
		return most
	}
	n := 0
	for n < most && time.Duration(float64(rows[n].offset)/r.speed) <= since {
		n++
	}
	return n
}

func (r *replay) send(ctx context.Context, cl *client.Client, rows []row) error {
	if len(rows) <= few {
		r.single = true
		for _, x := range rows {
			if err := cl.Report(ctx, x.position); err != nil {
				return fmt.Errorf("report %s: %w", x.position.Driver, err)
			}
		}
		return nil
	}
	batch := make([]dray.Position, len(rows))
	for i, x := range rows {
		batch[i] = x.position
	}
	return r.sendBatch(ctx, cl, batch)
}

// sendBatch sends a batch, in halves where its message is too large for the server, and
// again while the server can't take it.
func (r *replay) sendBatch(ctx context.Context, cl *client.Client, batch []dray.Position) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		result, err := cl.ReportBatch(ctx, batch)
		switch {
		case err == nil:
			r.superseded += result.Superseded
			for _, x := range result.Rejected {
				r.refuse(client.Refusal{Position: batch[x.Index], Err: x.Err})
			}
			return nil
		case errors.Is(err, dray.ErrTooLarge) && len(batch) > 1:
			half := len(batch) / 2
			if err := r.sendBatch(ctx, cl, batch[:half]); err != nil {
				return err
			}
			batch = batch[half:]
		case ctx.Err() != nil || !dray.CodeOf(err).Retryable() || dray.CodeOf(err) == dray.CodeInternal:
			return fmt.Errorf("report a batch of %d: %w", len(batch), err)
		default:
			select {
			case <-time.After(max(wait, dray.AsError(err).RetryAfter)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}
