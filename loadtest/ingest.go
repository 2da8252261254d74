package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"time"

	"dray"
)

// An IngestPlan is a fleet that reports.
type IngestPlan struct {
	Plan
	Connections int
	Mode        string // one of IngestModes

	// Of mode answer: positions in a frame, and how many positions a connection may have
	// under way; 0 means one frame.
	Batch, InFlight int
	Window          int     // of mode stream: positions of a connection that may wait for their ack
	Rate            float64 // of mode rate: positions a second of each connection
}

// IngestModes are what publishers wait for: nothing but the answer to send the next frame
// (answer), room in the window of positions not yet acknowledged (stream), the time (rate).
var IngestModes = []string{"answer", "stream", "rate"}

// Validate checks p.
func (p *IngestPlan) Validate() error {
	if err := p.Plan.Validate(); err != nil {
		return err
	}
	switch {
	case p.Connections < 1 || p.Connections > 60_000:
		return errors.New("--connections must be 1 to 60000")
	case p.Drivers < p.Connections:
		return errors.New("--drivers must be at least --connections, for each connection has its own")
	case p.Batch < 1 || p.Batch > dray.MaxPositions:
		return fmt.Errorf("--batch must be 1 to %d", dray.MaxPositions)
	case p.Batch > 1 && p.Mode != "answer":
		return errors.New("--batch is for --mode answer: the other modes send single positions")
	case p.InFlight < 0 || p.InFlight > 100_000:
		return errors.New("--in-flight must be 0 to 100000")
	case p.Window < 1 || p.Window > 100_000:
		return errors.New("--window must be 1 to 100000")
	case p.Mode == "rate" && !(p.Rate > 0 && p.Rate*float64(p.Connections) <= 1e6):
		return errors.New("--rate must be over 0, and --rate times --connections at most a million")
	}
	return nil
}

// Ingest measures positions in, until they are stored, and then looks whether what was
// acknowledged is there.
func Ingest(ctx context.Context, t Target, p *IngestPlan) (*Result, error) {
	r := newRun(ctx, "ingest", t, &p.Plan)
	defer r.end()
	f := newFleet(&p.Plan)
	frames := max(1, p.InFlight/p.Batch)
	switch p.Mode {
	case "stream":
		frames = p.Window
	case "rate":
		frames = max(64, int(p.Rate*drainWait.Seconds()))
	}
	r.say("connecting %d publishers", p.Connections)
	all, err := r.openPublishers(f, p.Connections, frames, p.Batch)
	if err != nil {
		return nil, err
	}
	switch p.Mode {
	case "answer":
		for _, c := range all {
			r.goLoad(func() error { return c.answerLoop(p.Batch) })
		}
	case "stream":
		for _, c := range all {
			r.goRun(func() error { return c.read(nil) })
		}
		senders := min(runtime.GOMAXPROCS(0), len(all))
		for i := range senders {
			r.goLoad(func() error { return r.streamLoop(all[i*len(all)/senders : (i+1)*len(all)/senders]) })
		}
	case "rate":
		for _, c := range all {
			r.goRun(func() error { return c.read(nil) })
		}
		r.goLoad(func() error { return r.rateLoop(all, p.Rate*float64(len(all))) })
	}
	if err := r.measure("positions"); err != nil {
		return nil, err
	}
	r.counted()
	r.drain(all)
	r.result.Missed = r.missed.Load()
	if err := r.verify(f); err != nil {
		return nil, err
	}
	return r.result, nil
}

// errAllAnswered ends a loop that has nothing more to wait for.
var errAllAnswered = errors.New("all is answered")

// answerLoop sends the next frame when one is answered, and ends when the last is.
func (p *publisher) answerLoop(batch int) error {
	for id := range p.slots {
		if err := p.batch(id, batch); err != nil {
			return err
		}
	}
	err := p.read(func(id int) error {
		switch {
		case !p.run.stopping.Load():
			return p.batch(id, batch)
		case p.waiting() == 0:
			return errAllAnswered
		}
		return nil
	})
	if errors.Is(err, errAllAnswered) {
		return nil
	}
	return err
}

// streamLoop goes round, one position a connection, so that the server sees as many
// senders as there are and not one burst after the other.
func (r *run) streamLoop(all []*publisher) error {
	for !r.stopping.Load() {
		idle := true
		for _, p := range all {
			if !p.room() {
				continue
			}
			idle = false
			if err := p.stream(); err != nil {
				return err
			}
		}
		if idle {
			time.Sleep(200 * time.Microsecond)
		}
	}
	return nil
}

// rateLoop sends one position after the other, evenly in time. A connection whose window is
// full misses its turn.
func (r *run) rateLoop(all []*publisher, perSecond float64) error {
	start := nanos()
	for n := 0; !r.stopping.Load(); n++ {
		due := start + int64(float64(n)/perSecond*float64(time.Second))
		if wait := due - nanos(); wait > 0 {
			time.Sleep(time.Duration(wait))
		}
		p := all[n%len(all)]
		if !p.room() {
			r.missed.Add(1)
			continue
		}
		if err := p.stream(); err != nil {
			return err
		}
	}
	return nil
}

// verify asks for the drivers' positions over REST: what was acknowledged must be there.
func (r *run) verify(f *fleet) error {
	var known []int
	for i := range f.acked {
		if f.acked[i].at != 0 {
			known = append(known, i)
		}
	}
	random := rand.New(rand.NewPCG(r.plan.Seed, 2))
	random.Shuffle(len(known), func(i, k int) { known[i], known[k] = known[k], known[i] })
	known = known[:min(len(known), r.plan.Check)]
	r.say("looking up %d of %d drivers", len(known), len(f.cars))
	base, err := r.target.base()
	if err != nil {
		return err
	}
	c := r.result.check("the newest acknowledged position is stored", int64(len(known)))
	if len(known) == 0 && r.plan.Check > 0 {
		c.fail(1, "nothing was acknowledged at all")
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	asker := &http.Client{Transport: transport, Timeout: drainWait}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for k := w; k < len(known); k += 8 {
				i := known[k]
				got, found, err := lookUp(r.ctx, asker, base+"/v1/drivers/"+f.ids[i])
				want, last := f.acked[i], f.cars[i].place
				switch {
				case err != nil:
					c.fail(1, "%s: %v", f.ids[i], err)
				case !found:
					c.fail(1, "%s is not live, and %d was acknowledged", f.ids[i], want.at)
				case got != want && (got.at <= want.at || got.at > last.at): // newer: refused, or not answered, and stored all the same
					c.fail(1, "%s is %v, and %v was acknowledged", f.ids[i], got, want)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(r.ctx)
}

// lookUp asks for one driver; false when it is not live.
func lookUp(ctx context.Context, asker *http.Client, url string) (place, bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return place{}, false, err
	}
	resp, err := asker.Do(req)
	if err != nil {
		return place{}, false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return place{}, false, err
	case resp.StatusCode == http.StatusNotFound:
		return place{}, false, nil
	case resp.StatusCode != http.StatusOK:
		return place{}, false, fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	var d dray.Driver
	if err := dray.Unmarshal(body, &d); err != nil {
		return place{}, false, err
	}
	return entryOf(&d).place, true, nil
}
