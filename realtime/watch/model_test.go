package watch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uber/h3-go/v4"

	"dray"
	"dray/realtime/claim"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// A node is one dray node without its edge.
type node struct {
	store  *location.Store
	hub    *watch.Hub
	claims *claim.Store
}

func newNode(t *testing.T, rdb *redisconn.Client, ttl time.Duration) node {
	t.Helper()
	store := location.New(location.Config{Redis: rdb, TTL: ttl})
	hub := watch.New(watch.Config{Redis: rdb, Locations: store})
	t.Cleanup(func() {
		hub.Close()
		if err := store.Close(context.Background()); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return node{store, hub, claim.New(claim.Config{Redis: rdb, Near: hub})}
}

// servers opens the kinds of Redis that the tests run on; two clients of one key prefix, for
// two nodes.
func onEveryRedis(t *testing.T, test func(t *testing.T, a, b *redisconn.Client)) {
	t.Run("single", func(t *testing.T) {
		config := redistest.Single(t).Config()
		config.KeyPrefix = redistest.Prefix(t)
		test(t, redistest.Open(t, config), redistest.Open(t, config))
	})
	t.Run("cluster", func(t *testing.T) {
		config := redistest.Cluster(t).Config()
		config.KeyPrefix = redistest.Prefix(t)
		test(t, redistest.Open(t, config), redistest.Open(t, config))
	})
}

// A watcher is a client of one subscription: it applies changes and checks, at each, what a
// subscription promises.
type watcher struct {
	name   string
	shape  dray.Shape
	filter dray.Filter
	sub    *watch.Subscription
	due    chan struct{}
	done   chan struct{}

	mu      sync.Mutex // guards the fields below
	set     map[string]dray.Driver
	version uint64
	newest  map[string]int64 // driver -> timestamp sent last
	faults  []string
}

func (n node) watch(t *testing.T, name string, shape dray.Shape, filter dray.Filter, interval time.Duration) *watcher {
	t.Helper()
	w := &watcher{name: name, shape: shape, filter: filter, due: make(chan struct{}, 1), done: make(chan struct{}),
		set: map[string]dray.Driver{}, newest: map[string]int64{}}
	sub, err := n.hub.Subscribe(t.Context(), shape, filter, watch.Options{Interval: interval, Due: func() {
		select {
		case w.due <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		t.Fatalf("Subscribe(%s) = %v", describe(shape), err)
	}
	w.sub = sub
	go func() {
		defer close(w.done)
		var c watch.Change
		for range w.due {
			if sub.Next(&c) {
				w.apply(&c)
			}
		}
	}()
	return w
}

func (w *watcher) close() {
	w.sub.Close()
	close(w.due)
	<-w.done
}

func (w *watcher) apply(c *watch.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fault := func(format string, args ...any) {
		w.faults = append(w.faults, fmt.Sprintf("version %d: ", c.Version)+fmt.Sprintf(format, args...))
	}
	if c.Version <= w.version {
		fault("after version %d", w.version)
	}
	w.version = c.Version
	if c.Snapshot {
		clear(w.set)
	}
	if !c.Snapshot && len(c.Entered)+len(c.Moved)+len(c.Left) == 0 {
		fault("empty delta")
	}
	for _, l := range c.Left {
		if _, in := w.set[l.Driver]; !in {
			fault("%s left (%s) but was not in", l.Driver, l.Reason)
		}
		delete(w.set, l.Driver)
	}
	once := map[string]bool{}
	for i, list := range [][][]byte{c.Entered, c.Moved} {
		for _, text := range list {
			var d dray.Driver
			if err := d.UnmarshalJSON(text); err != nil {
				fault("%s: %v", text, err)
			}
			if _, in := w.set[d.Driver]; in != (i == 1) || once[d.Driver] {
				fault("%s in list %d, was in: %v, twice: %v", d.Driver, i, in, once[d.Driver])
			}
			once[d.Driver] = true
			if at := d.Timestamp.UnixMilli(); at < w.newest[d.Driver] {
				fault("%s at %d after %d", d.Driver, at, w.newest[d.Driver])
			} else {
				w.newest[d.Driver] = at
			}
			w.set[d.Driver] = d
		}
	}
	for _, l := range c.Left {
		if once[l.Driver] {
			fault("%s in two lists", l.Driver)
		}
	}
}

// truth is what every set must come to, by brute force.
type truth struct {
	drivers map[string]dray.Driver // newest of each
	offline map[string]bool
	held    map[string]string // driver -> claim
}

func (x *truth) report(p dray.Position) {
	if held, ok := x.drivers[p.Driver]; ok && !p.Timestamp.After(held.Timestamp) {
		return
	}
	x.drivers[p.Driver] = dray.Driver{Position: p}
	delete(x.offline, p.Driver)
}

// differs names the first difference between w's set and what it should be; "" for none.
func (x *truth) differs(w *watcher) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) > 0 {
		return "fault: " + w.faults[0]
	}
	for id, d := range x.drivers {
		claimed := x.held[id] != ""
		want := !x.offline[id] && inside(w.shape, id, d.Point()) && w.filter.Match(d.Attributes) && (!claimed || w.shape.Drivers != nil)
		got, in := w.set[id]
		switch {
		case want != in:
			return fmt.Sprintf("%s at %v: in set %v, want %v", id, d.Point(), in, want)
		case in && (got.Claimed != claimed || got.Point() != d.Point() || !got.Timestamp.Equal(d.Timestamp) || !maps.Equal(got.Attributes, d.Attributes)):
			return fmt.Sprintf("%s is %+v, want %+v", id, got, d)
		}
	}
	for id := range w.set {
		if _, known := x.drivers[id]; !known {
			return id + " is nobody"
		}
	}
	return ""
}

// inside is the shapes' meaning, written a second time and plainly.
func inside(s dray.Shape, id string, p dray.Point) bool {
	lng := p.Longitude
	switch {
	case s.Nearby != nil:
		return dray.Distance(s.Nearby.Center(), p) <= s.Nearby.Radius
	case s.Bounds != nil:
		b := s.Bounds
		if b.West > b.East {
			return p.Latitude >= b.South && p.Latitude <= b.North && (lng >= b.West || lng <= b.East)
		}
		return p.Latitude >= b.South && p.Latitude <= b.North && lng >= b.West && lng <= b.East
	case s.Area != nil: // the tests' polygons are convex and run anticlockwise
		ring := s.Area.Coordinates[0]
		for i := 1; i < len(ring); i++ {
			a, b := ring[i-1], ring[i]
			dx, px := math.Remainder(b[0]-a[0], 360), math.Remainder(lng-a[0], 360)
			if dx*(p.Latitude-a[1])-(b[1]-a[1])*px < 0 {
				return false
			}
		}
		return true
	case s.Cells != nil:
		for _, text := range s.Cells {
			c := h3.Cell(h3.IndexFromString(text))
			if h3.LatLngToCell(h3.LatLng{Lat: p.Latitude, Lng: lng}, c.Resolution()) == c {
				return true
			}
		}
		return false
	}
	return slices.Contains(s.Drivers, id)
}

func describe(s dray.Shape) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// A world is a part of the globe with something difficult in it.
type world struct {
	name   string
	center dray.Point
	spread float64 // degrees of latitude
}

var worlds = []world{
	{"austin", dray.Point{Latitude: 30.28, Longitude: -97.74}, 0.3},
	{"antimeridian", dray.Point{Latitude: -16.8, Longitude: 180}, 0.3},
	{"high north", dray.Point{Latitude: 84.9, Longitude: 20}, 0.15},
	{"greenwich and equator", dray.Point{}, 0.2},
}

func (w world) point(rnd *rand.Rand) dray.Point {
	lat := w.center.Latitude + (rnd.Float64()*2-1)*w.spread
	lng := w.center.Longitude + (rnd.Float64()*2-1)*w.spread/math.Cos(w.center.Latitude*math.Pi/180)
	p := dray.Point{Latitude: math.Min(lat, dray.MaxLatitude), Longitude: math.Remainder(lng, 360)}
	if rnd.IntN(40) == 0 && w.name == "antimeridian" {
		p.Longitude = []float64{180, -180}[rnd.IntN(2)]
	}
	return p
}

func (w world) shape(rnd *rand.Rand, drivers int) dray.Shape {
	c := w.point(rnd)
	wide := w.spread * rnd.Float64() / math.Cos(c.Latitude*math.Pi/180)
	switch rnd.IntN(5) {
	case 0:
		return dray.Shape{Nearby: &dray.Circle{Latitude: c.Latitude, Longitude: c.Longitude, Radius: 100 + rnd.Float64()*30000}}
	case 1:
		return dray.Shape{Bounds: &dray.Bounds{South: c.Latitude, North: c.Latitude + w.spread*rnd.Float64(),
			West: c.Longitude, East: math.Remainder(c.Longitude+wide, 360)}}
	case 2: // an ellipse of some points
		n := 3 + rnd.IntN(8)
		var ring [][2]float64
		for i := range n {
			sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(n))
			ring = append(ring, [2]float64{math.Remainder(c.Longitude+wide*cos, 360), math.Min(c.Latitude+w.spread*0.7*sin, 90)})
		}
		return dray.Shape{Area: &dray.Polygon{Type: "Polygon", Coordinates: [][][2]float64{append(ring, ring[0])}}}
	case 3:
		var list []string
		for range 1 + rnd.IntN(8) {
			p := w.point(rnd)
			list = append(list, h3.LatLngToCell(h3.LatLng{Lat: p.Latitude, Lng: p.Longitude}, 3+rnd.IntN(6)).String())
		}
		return dray.Shape{Cells: list}
	}
	var ids []string
	for range 1 + rnd.IntN(6) {
		ids = append(ids, "d"+strconv.Itoa(rnd.IntN(drivers)))
	}
	return dray.Shape{Drivers: ids}
}

func randomFilter(rnd *rand.Rand) dray.Filter {
	switch rnd.IntN(4) {
	case 0:
		return dray.Filter{"status": {"free"}}
	case 1:
		return dray.Filter{"status": {"free", "busy"}, "vehicle": {"van"}}
	}
	return nil
}

func randomAttributes(rnd *rand.Rand) map[string]string {
	a := map[string]string{}
	if rnd.IntN(4) > 0 {
		a["status"] = []string{"free", "busy", "paus\"e"}[rnd.IntN(3)]
	}
	if rnd.IntN(2) > 0 {
		a["vehicle"] = []string{"van", "tru}ck"}[rnd.IntN(2)]
	}
	return a
}

// seed is DRAY_SEED, or a new one; it is printed when the test fails.
func seed(t *testing.T) uint64 {
	s := rand.Uint64()
	if text := os.Getenv("DRAY_SEED"); text != "" {
		var err error
		if s, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("DRAY_SEED: %v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with: DRAY_SEED=%d go test ./realtime/watch -run '%s'", s, t.Name())
		}
	})
	return s
}

// Random drivers cross buckets, report late and twice over two nodes at once, go offline, are
// claimed and given back;
// watchers of every shape come, change and go on both. After each step every watcher's set
// is the brute-force truth.
func TestSetsEqualTruth(t *testing.T) {
	steps := 40
	if testing.Short() {
		steps = 10
	}
	onEveryRedis(t, func(t *testing.T, a, b *redisconn.Client) {
		for _, w := range worlds {
			t.Run(w.name, func(t *testing.T) { runModel(t, w, []node{newNode(t, a, 0), newNode(t, b, 0)}, steps) })
		}
	})
}

func runModel(t *testing.T, w world, nodes []node, steps int) {
	s := seed(t)
	rnd := rand.New(rand.NewPCG(s, 1))
	const drivers = 24
	x := &truth{drivers: map[string]dray.Driver{}, offline: map[string]bool{}, held: map[string]string{}}
	prefix := strings.ReplaceAll(w.name, " ", "-") + "."
	base := time.Now().Add(-30 * time.Second)
	clock := 0
	var watchers []*watcher
	defer func() {
		for _, w := range watchers {
			w.close()
		}
	}()
	rename := func(shape dray.Shape) dray.Shape { // worlds share a Redis: each has its own drivers
		for i := range shape.Drivers {
			shape.Drivers[i] = prefix + shape.Drivers[i]
		}
		return shape
	}
	position := func() dray.Position {
		clock += rnd.IntN(3)
		p := dray.NewPosition(prefix+"d"+strconv.Itoa(rnd.IntN(drivers)), w.point(rnd))
		if held, ok := x.drivers[p.Driver]; ok && rnd.IntN(3) > 0 { // most moves are small
			p.Latitude = math.Min(held.Latitude+(rnd.Float64()-0.5)*0.02, dray.MaxLatitude)
			p.Longitude = math.Remainder(held.Longitude+(rnd.Float64()-0.5)*0.02, 360)
		}
		p.Timestamp = base.Add(time.Duration(max(clock-rnd.IntN(6), 0)) * time.Millisecond).Truncate(time.Millisecond)
		p.Attributes = randomAttributes(rnd)
		return p
	}
	for step := range steps {
		var did string
		switch k := rnd.IntN(13); {
		case k < 5: // both nodes at once, the same drivers
			var batches [2][]dray.Position
			for i := range batches {
				seen := map[string]bool{}
				for range 1 + rnd.IntN(20) {
					p := position()
					// one timestamp, one position: which of two would win is not told
					if held, ok := x.drivers[p.Driver]; ok && held.Timestamp.Equal(p.Timestamp) || seen[p.Driver] {
						continue
					}
					seen[p.Driver] = true
					batches[i] = append(batches[i], p)
					x.report(p)
				}
			}
			did = fmt.Sprint("report ", batches)
			var both sync.WaitGroup
			for i, batch := range batches {
				both.Go(func() {
					results, err := nodes[i].store.Report(t.Context(), batch)
					if err != nil {
						t.Errorf("Report(%v) = %v", batch, err)
					}
					for j, r := range results {
						if r.Err != nil {
							t.Errorf("Report(%v): %v", batch[j], r.Err)
						}
					}
				})
			}
			both.Wait()
		case k == 5:
			id := prefix + "d" + strconv.Itoa(rnd.IntN(drivers))
			did = "offline " + id
			if err := nodes[rnd.IntN(2)].store.Offline(t.Context(), id); err != nil {
				t.Fatalf("Offline(%s) = %v", id, err)
			}
			if _, known := x.drivers[id]; known {
				x.offline[id] = true
			}
		case k == 6 && len(watchers) > 6:
			i := rnd.IntN(len(watchers))
			did = "close " + watchers[i].name
			watchers[i].close()
			watchers = slices.Delete(watchers, i, i+1)
		case k == 7 && len(watchers) > 0:
			v := watchers[rnd.IntN(len(watchers))]
			shape, filter := &v.shape, &v.filter
			if rnd.IntN(3) > 0 {
				s := rename(w.shape(rnd, drivers))
				shape = &s
			}
			if rnd.IntN(2) > 0 {
				f := randomFilter(rnd)
				filter = &f
			}
			did = fmt.Sprint("update ", v.name, " to ", describe(*shape), *filter)
			if err := v.sub.Update(t.Context(), shape, filter, func() {}); err != nil {
				t.Fatalf("step %d: %s: %v", step, did, err)
			}
			v.mu.Lock()
			v.shape, v.filter = *shape, *filter
			v.mu.Unlock()
		case k >= 10:
			did = claimStep(t, x, nodes[rnd.IntN(2)], w, rnd)
		default:
			shape, filter := rename(w.shape(rnd, drivers)), randomFilter(rnd)
			i := rnd.IntN(2)
			name := fmt.Sprintf("watcher %d on node %d", step, i)
			did = fmt.Sprint("watch ", name, " ", describe(shape), filter)
			watchers = append(watchers, nodes[i].watch(t, name, shape, filter, []time.Duration{0, 20 * time.Millisecond}[rnd.IntN(2)]))
		}
		for _, v := range watchers {
			settle(t, fmt.Sprintf("step %d: %s: %s %s%v", step, did, v.name, describe(v.shape), v.filter), func() string { return x.differs(v) })
		}
		if step%5 == 0 {
			checkQuestions(t, x, nodes[rnd.IntN(2)], w, rnd)
		}
		if t.Failed() {
			return
		}
	}
}

// checkQuestions compares answers for single drivers and for nearby with the truth.
func checkQuestions(t *testing.T, x *truth, n node, w world, rnd *rand.Rand) {
	t.Helper()
	for id, d := range x.drivers {
		got, ok, err := n.store.Last(t.Context(), id)
		if err != nil || ok == x.offline[id] || ok && (got.Point() != d.Point() || !got.Timestamp.Equal(d.Timestamp)) {
			t.Errorf("Last(%s) = %+v, %v, %v, want %+v, offline %v", id, got, ok, err, d, x.offline[id])
		}
	}
	center, radius, filter := w.point(rnd), 100+rnd.Float64()*40000, randomFilter(rnd)
	x.ask(t, n, center, radius, 1+rnd.IntN(20), filter)
}

// ask waits until n answers a nearby question as it must, and returns that answer.
func (x *truth) ask(t *testing.T, n node, center dray.Point, radius float64, limit int, filter dray.Filter) []near {
	t.Helper()
	var want []near
	for id, d := range x.drivers {
		if distance := dray.Distance(center, d.Point()); !x.offline[id] && x.held[id] == "" && distance <= radius && filter.Match(d.Attributes) {
			want = append(want, near{id, distance})
		}
	}
	slices.SortFunc(want, func(a, b near) int { return int(math.Copysign(1, a.distance-b.distance)) })
	want = want[:min(len(want), limit)]
	settle(t, fmt.Sprintf("Nearby(%v, %v, %d, %v)", center, radius, limit, filter), func() string {
		hits, err := n.hub.Nearby(t.Context(), center, radius, limit, filter)
		if err != nil || len(hits) != len(want) {
			return fmt.Sprintf("%d hits, %v, want %d", len(hits), err, len(want))
		}
		for i, hit := range hits {
			d, err := hit.Driver()
			if err != nil || d.Driver != want[i].id || math.Abs(d.Distance-want[i].distance) > 0.001 {
				return fmt.Sprintf("hit %d is %+v, %v, want %+v", i, d, err, want[i])
			}
		}
		return ""
	})
	return want
}

// near is a driver and how far it is.
type near struct {
	id       string
	distance float64
}

// claimStep makes a claim of some drivers, one that ends at once, or gives one back; it
// compares the answer with the truth, and tells what it did.
func claimStep(t *testing.T, x *truth, n node, w world, rnd *rand.Rand) string {
	t.Helper()
	if held := slices.Sorted(maps.Values(x.held)); len(held) > 0 && rnd.IntN(3) == 0 {
		id := held[rnd.IntN(len(held))]
		if err := n.claims.Unclaim(t.Context(), id); err != nil {
			t.Errorf("Unclaim(%s) = %v", id, err)
		}
		maps.DeleteFunc(x.held, func(_, claim string) bool { return claim == id })
		return "unclaim " + id
	}
	c := w.point(rnd)
	r := dray.ClaimRequest{Circle: dray.Circle{Latitude: c.Latitude, Longitude: c.Longitude, Radius: 1000 + rnd.Float64()*40000},
		Count: 1 + rnd.IntN(4), Filter: randomFilter(rnd), TTL: time.Hour}
	ends := rnd.IntN(8) == 0
	if ends {
		r.TTL = time.Second
	}
	want := x.ask(t, n, c, r.Radius, dray.MaxLimit, r.Filter)
	want = want[:min(len(want), r.Count)]
	got, err := n.claims.Claim(t.Context(), "", r)
	did := fmt.Sprintf("claim %+v: %s, %v", r, got.ID, err)
	if len(want) == 0 != errors.Is(err, dray.ErrNoneAvailable) || len(got.Drivers) != len(want) {
		t.Errorf("%s of %+v, want %+v", did, got.Drivers, want)
		return did
	}
	for i, d := range got.Drivers {
		if d.Driver != want[i].id || math.Abs(d.Distance-want[i].distance) > 0.001 {
			t.Errorf("%s: driver %d is %+v, want %+v", did, i, d, want[i])
		}
		if !ends { // else the sets will be as before
			x.held[d.Driver] = got.ID
		}
	}
	return did
}

// settle waits until differs is "", as it must be within the promise's 250 ms; the bound here
// is for a machine under load.
func settle(t *testing.T, what string, differs func() string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		d := differs()
		if d == "" {
			return
		}
		if time.Now().After(deadline) || strings.HasPrefix(d, "fault") {
			t.Errorf("%s:\n%s", what, d)
			return
		}
		time.Sleep(time.Millisecond)
	}
}
