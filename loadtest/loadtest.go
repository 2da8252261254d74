// Package loadtest measures a dray server from outside, and holds it to its promises while it
// works: simulated fleets that report, watchers that keep sets, and people who ask who is near.
// It counts the CPU of each process an operation costs, for figures that are told a second
// on some machine say little about another.
//
// The load shares the machine with what it measures, so it is made to be cheap: a WebSocket
// client of its own that masks with zeros, frames that are made and read by hand, and no
// allocation for a position.
package loadtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// A Target is a server to measure.
type Target struct {
	Name      string    // as the report calls it
	URL       string    // of its WebSocket: ws://host:port/v1/ws
	Processes []Process // on this machine, whose CPU is the server's side; empty where not known
	Redis     string    // host:port of its Redis; empty where not known

	// Tolerance is how many metres its distances may be off. Zero means 0.01, for dray tells them
	// to the millimetre; those of GEOSEARCH are half a metre off.
	Tolerance float64
}

// A Process is one whose CPU is counted.
type Process struct {
	Name string
	PID  int
}

// base is where REST is: http://host:port.
func (t *Target) base() (string, error) {
	u, err := url.Parse(t.URL)
	if err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" {
		return "", fmt.Errorf("%q is not the URL of a WebSocket: ws://host:port/v1/ws", t.URL)
	}
	if u.Scheme == "wss" {
		return "https://" + u.Host, nil
	}
	return "http://" + u.Host, nil
}

// A Plan is what every scenario needs to know.
type Plan struct {
	Seed     uint64        // the same fleet, places and questions for the same seed
	Warmup   time.Duration // before the window that is measured
	Duration time.Duration // of that window
	Drivers  int           // size of the fleet
	Spread   float64       // metres: side of the square that the fleet keeps within
	Check    int           // of how many drivers, or answers, at most is the truth looked up

	// Progress is shown what goes on; a passing line is worth nothing once the next is there.
	// Nil shows nobody.
	Progress func(line string, passing bool)
}

// Validate checks p. Its words are those of the flags of dray loadtest.
func (p *Plan) Validate() error {
	switch {
	case p.Warmup < 0 || p.Warmup > 10*time.Minute:
		return errors.New("--warmup must be 0 to 10m")
	case p.Duration <= 0 || p.Duration > time.Hour:
		return errors.New("--duration must be more than 0 and at most 1h")
	case p.Drivers < 1 || p.Drivers > 10_000_000:
		return errors.New("--drivers must be 1 to 10000000")
	case p.Spread < 100 || p.Spread > 500_000:
		return errors.New("--spread must be 100 m to 500 km")
	case p.Check < 0:
		return errors.New("--check must be 0 or more")
	}
	return nil
}

const (
	drainWait = 10 * time.Second // for what is under way when the load stops
	dialers   = 64               // handshakes at once
)

// A run is one scenario on one target.
type run struct {
	target Target
	plan   *Plan
	ctx    context.Context // ends, with the reason as its cause, when the run fails
	fail   context.CancelCauseFunc
	work   sync.WaitGroup
	loads  sync.WaitGroup // of work, those that send while it is not stopping
	meter  *meter
	result *Result

	stopping atomic.Bool // no more load
	ending   atomic.Bool // sockets are being closed: their errors are ours
	missed   atomic.Int64

	mu      sync.Mutex // guards the fields below
	sockets []*socket
}

func newRun(ctx context.Context, scenario string, t Target, p *Plan) *run {
	r := &run{target: t, plan: p, meter: newMeter(), result: &Result{Scenario: scenario, Target: t.Name}}
	r.ctx, r.fail = context.WithCancelCause(ctx)
	return r
}

// goRun runs f until the run's end; its error fails the run.
func (r *run) goRun(f func() error) {
	r.work.Go(func() {
		if err := f(); err != nil && !r.ending.Load() {
			r.fail(err)
		}
	})
}

// goLoad is goRun for what sends.
func (r *run) goLoad(f func() error) {
	r.loads.Add(1)
	r.goRun(func() error {
		defer r.loads.Done()
		return f()
	})
}

// stop ends the load; false when some of it has not ended within drainWait.
func (r *run) stop() bool {
	r.stopping.Store(true)
	stopped := make(chan struct{})
	r.work.Go(func() {
		r.loads.Wait()
		close(stopped)
	})
	select {
	case <-stopped:
		return true
	case <-r.ctx.Done():
	case <-time.After(drainWait):
	}
	return false
}

// end closes every socket and waits for every goroutine. Twice is no harm.
func (r *run) end() {
	r.stopping.Store(true)
	r.ending.Store(true)
	r.fail(context.Canceled)
	r.mu.Lock()
	sockets := r.sockets
	r.mu.Unlock()
	for _, s := range sockets {
		s.close()
	}
	r.work.Wait()
}

func (r *run) say(format string, args ...any) {
	if r.plan.Progress != nil {
		r.plan.Progress(r.target.Name+": "+fmt.Sprintf(format, args...), false)
	}
}

// dial opens n sockets, past their welcome where the server says one.
func (r *run) dial(n int) ([]*socket, error) {
	sockets := make([]*socket, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	var first atomic.Pointer[error]
	for range min(n, dialers) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && first.Load() == nil; i = next.Add(1) - 1 {
				s, err := dial(r.ctx, r.target.URL)
				if err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
				sockets[i] = s
			}
		})
	}
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range sockets {
		if s != nil {
			r.sockets = append(r.sockets, s)
		}
	}
	if err := first.Load(); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", r.target.URL, *err)
	}
	return sockets, nil
}

// measure lets the warm-up pass, then the window, and fills in what the window cost.
// operations are what the meter counts.
func (r *run) measure(operations string) error {
	if r.plan.Warmup > 0 {
		r.say("warming up for %v", r.plan.Warmup)
	}
	if err := r.sleep(r.plan.Warmup); err != nil {
		return err
	}
	r.say("measuring for %v", r.plan.Duration)
	redis := newRedisWatch(r.ctx, r.target.Redis)
	defer redis.close()
	before := r.cpu()
	began := r.meter.open()
	for end := began + int64(r.plan.Duration); ; {
		left := time.Duration(end - nanos())
		if left <= 0 {
			break
		}
		if err := r.sleep(min(left, time.Second)); err != nil {
			return err
		}
		if r.plan.Progress != nil {
			gone := time.Duration(nanos() - began)
			r.plan.Progress(fmt.Sprintf("%s: %2.0f of %.0f s, %s %s/s", r.target.Name, gone.Seconds(), r.plan.Duration.Seconds(),
				thousands(float64(r.meter.count())/gone.Seconds()), operations), true)
		}
	}
	ended := r.meter.close()
	after := r.cpu()
	r.result.Operation = operations
	r.result.Seconds = time.Duration(ended - began).Seconds()
	r.result.used(before, after)
	r.result.RedisCommands = redis.since(r.ctx)
	return nil
}

// counted takes the meter's count as the operations of the window.
func (r *run) counted() {
	h := r.meter.total()
	r.result.Operations = h.TotalCount()
	r.result.Rate = float64(r.result.Operations) / r.result.Seconds
	r.result.Latency = latencyOf(h)
	r.result.perOperation()
}

// sleep returns the cause when the run fails first.
func (r *run) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// eventually asks ok until it is true or the time is up, and returns its last answer.
func (r *run) eventually(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); ; {
		if ok() {
			return true
		}
		if time.Now().After(end) || r.sleep(5*time.Millisecond) != nil {
			return false
		}
	}
}

var began = time.Now()

// nanos is the monotonic clock that all latencies are taken from.
func nanos() int64 { return int64(time.Since(began)) }
