package loadtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"dray"
)

// A WatchPlan is a fleet that moves and watchers that look at parts of it.
type WatchPlan struct {
	Plan
	Subscribers int
	Radius      float64       // metres of each one's circle
	Interval    time.Duration // of their subscriptions
	Updates     float64       // positions a second of the whole fleet
	Publishers  int           // connections that send them
	Frame       int           // positions in a message of theirs
}

// Validate checks p.
func (p *WatchPlan) Validate() error {
	if err := p.Plan.Validate(); err != nil {
		return err
	}
	switch {
	case p.Subscribers < 1 || p.Subscribers > 50_000:
		return errors.New("--subscribers must be 1 to 50000")
	case !(p.Radius > 0 && p.Radius <= dray.MaxRadius):
		return fmt.Errorf("--radius must be over 0 and at most %.0f m", dray.MaxRadius)
	case p.Interval < 0 || p.Interval > dray.MaxInterval:
		return fmt.Errorf("--interval must be 0 to %v", dray.MaxInterval)
	case !(p.Updates > 0 && p.Updates <= 1e6):
		return errors.New("--updates must be over 0 and at most a million a second")
	case p.Publishers < 1 || p.Publishers > p.Drivers:
		return errors.New("--publishers must be 1 to --drivers")
	case p.Frame < 1 || p.Frame > dray.MaxPositions || p.Frame*p.Publishers > p.Drivers:
		return fmt.Errorf("--frame must be 1 to %d, and --frame times --publishers at most --drivers", dray.MaxPositions)
	case float64(p.Drivers)/p.Updates > dray.DefaultTTL.Seconds()/2:
		return errors.New("--updates is too low for --drivers: each must be heard of twice within the location TTL")
	}
	return nil
}

// settleWait is how long after the last position every set must be right, beside the interval.
const settleWait = 2 * time.Second

// Watch measures how fast and at what cost watchers hear of positions, holds every frame
// to the contract, and then compares every set with what a plain computation says.
func Watch(ctx context.Context, t Target, p *WatchPlan) (*Result, error) {
	r := newRun(ctx, "watch", t, &p.Plan)
	defer r.end()
	f := newFleet(&p.Plan)
	if err := r.load(f); err != nil {
		return nil, err
	}
	l := newLogbook(f)
	subs, err := r.subscribe(f, l, p)
	if err != nil {
		return nil, err
	}
	pubs, err := r.openPublishers(f, p.Publishers, 64, p.Frame)
	if err != nil {
		return nil, err
	}
	free := make([]chan int, len(pubs))
	for i, c := range pubs {
		c.run = r.silent() // what the meter counts here are deliveries
		c.onSent = l.note
		free[i] = make(chan int, len(c.slots))
		for id := range c.slots {
			free[i] <- id
		}
		r.goRun(func() error { return c.read(func(id int) error { free[i] <- id; return nil }) })
	}
	r.goLoad(func() error { return r.pace(pubs, free, p) })
	if err := r.measure("deliveries"); err != nil {
		return nil, err
	}
	r.drain(pubs)
	r.settle(f, subs, p)
	r.deliveries(l, subs)
	return r.result, nil
}

// silent is r with a meter that is never open.
func (r *run) silent() *run {
	return &run{target: r.target, plan: r.plan, ctx: r.ctx, meter: newMeter()}
}

// pace sends the fleet's positions, frame after frame, evenly in time, one publisher after
// the other. One whose frames are all unanswered holds up the rest: what is late is caught up.
func (r *run) pace(pubs []*publisher, free []chan int, p *WatchPlan) error {
	start := nanos()
	every := float64(p.Frame) / p.Updates * float64(time.Second)
	for n := 0; !r.stopping.Load(); n++ {
		if wait := start + int64(float64(n)*every) - nanos(); wait > 0 {
			time.Sleep(time.Duration(wait))
		}
		k := n % len(pubs)
		select {
		case id := <-free[k]:
			if err := pubs[k].batch(id, p.Frame); err != nil {
				return err
			}
		case <-r.ctx.Done():
			return nil
		case <-time.After(drainWait):
			return errors.New("the server has answered no position for " + drainWait.String())
		}
	}
	return nil
}

// subscribe opens the watchers and waits until each has its snapshot.
func (r *run) subscribe(f *fleet, l *logbook, p *WatchPlan) ([]*subscriber, error) {
	r.say("connecting %d subscribers", p.Subscribers)
	sockets, err := r.dial(p.Subscribers)
	if err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(p.Seed, 3))
	all := make([]*subscriber, len(sockets))
	var living sync.WaitGroup
	for i, socket := range sockets {
		s := &subscriber{
			run: r, fleet: f, log: l, socket: socket, shard: i,
			center: f.somewhere(random), radius: p.Radius, held: map[int]holding{}, live: make(chan struct{}),
		}
		all[i] = s
		b := append(begin(nil), `{"type":"subscribe","id":1,"nearby":{"latitude":`...)
		b = dray.AppendNumber(b, s.center.Latitude)
		b = append(b, `,"longitude":`...)
		b = dray.AppendNumber(b, s.center.Longitude)
		b = append(b, `,"radius":`...)
		b = dray.AppendNumber(b, s.radius)
		b = append(b, `},"intervalMs":`...)
		b = strconv.AppendInt(b, p.Interval.Milliseconds(), 10)
		b = append(b, '}')
		r.goRun(func() error {
			if err := s.socket.write(finish(b, opText)); err != nil {
				return err
			}
			return s.read()
		})
		living.Go(func() {
			select {
			case <-s.live:
			case <-r.ctx.Done():
			}
		})
	}
	living.Wait()
	return all, context.Cause(r.ctx)
}

// settle compares every set with the truth, which it must reach within settleWait.
func (r *run) settle(f *fleet, subs []*subscriber, p *WatchPlan) {
	r.say("comparing %d sets", len(subs))
	right := r.result.check("every set ends up as it should be", int64(len(subs)))
	r.eventually(settleWait+p.Interval, func() bool {
		for _, s := range subs {
			if s.wrong(f) != "" {
				return false
			}
		}
		return true
	})
	var frames int64
	kept := r.result.check("every frame keeps the contract", 0)
	for i, s := range subs {
		if wrong := s.wrong(f); wrong != "" {
			right.fail(1, "watcher %d: %s", i, wrong)
		}
		s.mu.Lock()
		frames += s.frames
		for _, v := range s.violations {
			kept.fail(1, "watcher %d: %s", i, v)
		}
		kept.fail(s.broken-int64(len(s.violations)), "watcher %d: and more", i)
		s.mu.Unlock()
	}
	kept.Checked = frames
}

// deliveries counts what was due, and divides the cost by what was delivered.
func (r *run) deliveries(l *logbook, subs []*subscriber) {
	d := &DeliveryCounts{}
	for _, s := range subs {
		s.mu.Lock()
		d.Frames += s.frames
		d.Bytes += s.bytes
		d.Entered += s.entered
		d.Left += s.left
		d.Strangers += s.strangers
		s.mu.Unlock()
	}
	for i := range l.sent {
		u := &l.sent[i]
		if !r.meter.within(u.sent) {
			continue
		}
		d.Updates++
		at := u.point()
		for _, s := range subs {
			if dray.Distance(s.center, at) <= s.radius {
				d.Due++
			}
		}
	}
	r.counted()
	d.Delivered = r.result.Operations
	if micros, known := r.result.Serving(); known && d.Due > 0 {
		d.PerDue = micros * float64(d.Delivered) / float64(d.Due)
	}
	r.result.Deliveries = d
}

// A logbook remembers when each position was sent: all of them for the end, the latest of
// each driver for who hears of one.
type logbook struct {
	sent []update // of the one goroutine that sends, until it has ended

	recent []struct {
		mu   sync.Mutex // guards ring
		ring [32]update
	}
}

// An update is one position that was sent.
type update struct {
	place
	sent int64 // by nanos
}

func newLogbook(f *fleet) *logbook {
	l := &logbook{sent: make([]update, 0, 1<<20)}
	l.recent = make([]struct {
		mu   sync.Mutex
		ring [32]update
	}, len(f.cars))
	return l
}

func (l *logbook) note(driver int, p place, at int64) {
	u := update{p, at}
	l.sent = append(l.sent, u)
	d := &l.recent[driver]
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.ring[1:], d.ring[:])
	d.ring[0] = u
}

// find is the position of a driver with this timestamp; false when there was none lately.
func (l *logbook) find(driver int, at int64) (update, bool) {
	d := &l.recent[driver]
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.ring {
		if d.ring[i].at == at {
			return d.ring[i], true
		}
	}
	return update{}, false
}
