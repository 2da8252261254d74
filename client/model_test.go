package client_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/client"
	"dray/redisconn/redistest"
)

// A fleet is where every driver ought to be, and clients of two nodes that report it.
type fleet struct {
	*testing.T
	ctx       context.Context
	rnd       *rand.Rand
	reporters []*client.Client // of the two nodes
	at        map[string]dray.Position
	offline   map[string]bool
	clock     time.Time // of the last position
	watchers  []*looker
	did       string
}

// A looker is a subscription and the client it belongs to.
type looker struct {
	client *client.Client
	sub    *client.Subscription
	shape  dray.Shape
	filter dray.Filter
}

const fleetCenter = 30.3 // degrees north; -97.7 east. The fleet spreads over some buckets

func (f *fleet) point() dray.Point {
	return dray.Point{Latitude: fleetCenter + (f.rnd.Float64()-0.5)*0.5, Longitude: -97.7 + (f.rnd.Float64()-0.5)*0.6}
}

func (f *fleet) driver() string { return "d" + strconv.Itoa(f.rnd.IntN(30)) }

func (f *fleet) shape() dray.Shape {
	c := f.point()
	switch f.rnd.IntN(4) {
	case 0:
		return dray.Shape{Nearby: &dray.Circle{Latitude: c.Latitude, Longitude: c.Longitude, Radius: 500 + f.rnd.Float64()*30_000}}
	case 1:
		return dray.Shape{Bounds: &dray.Bounds{South: c.Latitude, West: c.Longitude, North: c.Latitude + f.rnd.Float64()/3, East: c.Longitude + f.rnd.Float64()/3}}
	case 2: // a triangle that points north
		h := 0.05 + f.rnd.Float64()/4
		ring := [][2]float64{{c.Longitude - h, c.Latitude - h}, {c.Longitude + h, c.Latitude - h}, {c.Longitude, c.Latitude + h}}
		return dray.Shape{Area: &dray.Polygon{Type: "Polygon", Coordinates: [][][2]float64{append(ring, ring[0])}}}
	}
	return dray.Shape{Drivers: []string{f.driver(), f.driver(), f.driver()}}
}

func (f *fleet) filter() dray.Filter {
	return []dray.Filter{nil, {"status": {"free"}}, {"status": {"free", "busy"}, "vehicle": {"van"}}}[f.rnd.IntN(3)]
}

// contains is the meaning of the shapes above, by other means than the server's.
func contains(s dray.Shape, id string, p dray.Point) bool {
	switch {
	case s.Nearby != nil:
		return dray.Distance(s.Nearby.Center(), p) <= s.Nearby.Radius
	case s.Bounds != nil:
		return s.Bounds.South <= p.Latitude && p.Latitude <= s.Bounds.North && s.Bounds.West <= p.Longitude && p.Longitude <= s.Bounds.East
	case s.Area != nil:
		ring := s.Area.Coordinates[0]
		for i := 1; i < len(ring); i++ {
			a, b := ring[i-1], ring[i]
			if (b[0]-a[0])*(p.Latitude-a[1])-(b[1]-a[1])*(p.Longitude-a[0]) < 0 {
				return false
			}
		}
		return true
	}
	return slices.Contains(s.Drivers, id)
}

// differs names a difference between what w holds and what it should; "" for none.
func (f *fleet) differs(w *looker) string {
	set := map[string]dray.Driver{}
	for _, d := range w.sub.Set() {
		set[d.Driver] = d
	}
	for id, p := range f.at {
		want := !f.offline[id] && contains(w.shape, id, p.Point()) && w.filter.Match(p.Attributes)
		got, in := set[id]
		delete(set, id)
		switch {
		case want != in:
			return fmt.Sprintf("%s at %v: in set %v, want %v", id, p.Point(), in, want)
		case in && (got.Point() != p.Point() || !got.Timestamp.Equal(p.Timestamp) || !maps.Equal(got.Attributes, p.Attributes)):
			return fmt.Sprintf("%s is %+v, want %+v", id, got.Position, p)
		}
	}
	for id := range set {
		return id + " is in the set and nobody has reported it"
	}
	return ""
}

// report has some drivers move over both nodes, mostly a little, now and then to another bucket.
func (f *fleet) report() {
	f.did = "report"
	for range 1 + f.rnd.IntN(20) {
		p := dray.NewPosition(f.driver(), f.point())
		if held, ok := f.at[p.Driver]; ok && f.rnd.IntN(3) > 0 {
			p.Latitude, p.Longitude = held.Latitude+(f.rnd.Float64()-0.5)/50, held.Longitude+(f.rnd.Float64()-0.5)/50
		}
		f.clock = f.clock.Add(time.Millisecond)
		p.Timestamp = f.clock
		p.Attributes = map[string]string{"status": []string{"free", "busy", "paus\"e"}[f.rnd.IntN(3)]}
		if f.rnd.IntN(2) > 0 {
			p.Attributes["vehicle"] = []string{"van", "tru}ck"}[f.rnd.IntN(2)]
		}
		if err := f.reporters[f.rnd.IntN(2)].Report(f.ctx, p); err != nil {
			f.Fatal(err)
		}
		if f.rnd.IntN(8) == 0 { // a late one, which changes nothing
			late := p
			late.Latitude, late.Timestamp = late.Latitude+0.2, p.Timestamp.Add(-time.Millisecond)
			defer func() {
				if err := f.reporters[f.rnd.IntN(2)].Report(f.ctx, late); err != nil {
					f.Fatal(err)
				}
			}()
		}
		f.at[p.Driver] = p
		delete(f.offline, p.Driver)
	}
}

// step does one thing; what was reported is stored when it returns.
func (f *fleet) step(dial func(node int) *client.Client) {
	switch k := f.rnd.IntN(12); {
	case k == 0:
		id := f.driver()
		f.did = "offline " + id
		if err := f.reporters[f.rnd.IntN(2)].Offline(f.ctx, id); err != nil {
			f.Fatal(err)
		}
		f.offline[id] = true
	case k == 1 && len(f.watchers) > 4:
		w := f.watchers[0]
		f.did = "close"
		if err := w.sub.Close(f.ctx); err != nil {
			f.Fatal(err)
		}
		w.client.Close()
		f.watchers = f.watchers[1:]
	case k <= 3 && len(f.watchers) > 0:
		w := f.watchers[f.rnd.IntN(len(f.watchers))]
		w.shape, w.filter = f.shape(), f.filter()
		f.did = fmt.Sprintf("update to %+v %v", w.shape, w.filter)
		if err := w.sub.Update(f.ctx, &w.shape, &w.filter); err != nil {
			f.Fatal(err)
		}
	case k <= 6 && len(f.watchers) < 12:
		w := &looker{client: dial(f.rnd.IntN(2)), shape: f.shape(), filter: f.filter()}
		f.did = fmt.Sprintf("watch %+v %v", w.shape, w.filter)
		var err error
		if w.sub, err = w.client.Subscribe(f.ctx, w.shape, w.filter, []time.Duration{0, 20 * time.Millisecond}[f.rnd.IntN(2)]); err != nil {
			f.Fatal(err)
		}
		f.watchers = append(f.watchers, w)
	default:
		f.report()
	}
	for _, c := range f.reporters {
		if err := c.Flush(f.ctx); err != nil {
			f.Fatal(err)
		}
	}
}

// Clients of two nodes on one Redis watch drivers that move, cross buckets, change and go
// offline; connections are cut. After each step every client's set is what brute force says,
// and Config.Strict holds every frame to the contract. DRAY_SEED replays, DRAY_MODEL_STEPS
// makes it longer.
func TestSetsOverTheWireEqualTruth(t *testing.T) {
	seed, steps := rand.Uint64(), 60
	if text := os.Getenv("DRAY_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	if n, err := strconv.Atoi(os.Getenv("DRAY_MODEL_STEPS")); err == nil {
		steps = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with: DRAY_SEED=%d DRAY_MODEL_STEPS=%d go test ./client -run '%s'", seed, steps, t.Name())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(steps)*time.Second)
	defer cancel()
	redis := redistest.Single(t).Config()
	redis.KeyPrefix = redistest.Prefix(t)
	var nodes [2]*cutter
	for i := range nodes {
		nodes[i] = &cutter{}
		stop, err := nodeOn(ctx, redis, nodes[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	dial := func(i int) *client.Client {
		config := client.Config{URL: nodes[i].url, Logger: quiet(), MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
			Refused: func(r client.Refusal) { t.Errorf("refused: %+v", r) }}
		strict(t)(&config)
		c, err := client.Dial(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	f := &fleet{T: t, ctx: ctx, rnd: rand.New(rand.NewPCG(seed, 3)), at: map[string]dray.Position{}, offline: map[string]bool{},
		clock: time.Now().Add(-30 * time.Second).Truncate(time.Millisecond)}
	f.reporters = []*client.Client{dial(0), dial(1)}
	for i := 0; i < steps && !t.Failed(); i++ {
		f.step(dial)
		if f.rnd.IntN(6) == 0 {
			f.did += ", then all connections of a node are cut"
			nodes[f.rnd.IntN(2)].cut()
		}
		for _, w := range f.watchers {
			f.await(i, w)
		}
	}
}

// A cutter is how a node is reached, and cuts the connections to it.
type cutter struct {
	net.Listener
	url string

	mu    sync.Mutex // guards the fields below
	conns []net.Conn
}

func (x *cutter) Accept() (net.Conn, error) {
	c, err := x.Listener.Accept()
	if err == nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.conns = append(x.conns, c)
	}
	return c, err
}

func (x *cutter) cut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.conns {
		c.Close()
	}
	x.conns = nil
}

func (f *fleet) await(step int, w *looker) {
	f.Helper()
	give := time.Now().Add(20 * time.Second)
	for last := f.differs(w); last != ""; last = f.differs(w) {
		if time.Now().After(give) || f.ctx.Err() != nil {
			f.Fatalf("step %d: %s: a client of %+v %v: %s", step, f.did, w.shape, w.filter, last)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
