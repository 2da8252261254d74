package watch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn/redistest"
)

var (
	here  = dray.Point{Latitude: 30.2672, Longitude: -97.7431}
	there = dray.Point{Latitude: 30.5083, Longitude: -97.6789} // 27 km off, another bucket
	city  = dray.Shape{Nearby: &dray.Circle{Latitude: here.Latitude, Longitude: here.Longitude, Radius: 5000}}
)

// pair is two nodes on one server, each with a client of its own.
func pair(t *testing.T, server *redistest.Server, ttl time.Duration) (a, b node) {
	t.Helper()
	config := server.Config()
	config.KeyPrefix = redistest.Prefix(t)
	return newNode(t, redistest.Open(t, config), ttl), newNode(t, redistest.Open(t, config), ttl)
}

func (n node) report(t *testing.T, positions ...dray.Position) {
	t.Helper()
	results, err := n.store.Report(t.Context(), positions)
	if err != nil {
		t.Fatalf("Report = %v", err)
	}
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("Report(%+v): %v", positions[i], r.Err)
		}
	}
}

// holds waits until w's set is just these drivers.
func (w *watcher) holds(t *testing.T, want ...string) {
	t.Helper()
	settle(t, fmt.Sprintf("%s holds %v", w.name, want), func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.faults) > 0 {
			return "fault: " + w.faults[0]
		}
		for _, id := range want {
			if _, in := w.set[id]; !in {
				return id + " is missing"
			}
		}
		if len(w.set) != len(want) {
			return fmt.Sprintf("%d in the set", len(w.set))
		}
		return ""
	})
}

// What another program or a lost message changes is found by the gap in the numbers.
func TestGapIsReadAgain(t *testing.T) {
	server := redistest.Single(t)
	a, b := pair(t, server, 0)
	w := b.watch(t, "w", city, nil, 0)
	defer w.close()
	a.report(t, dray.NewPosition("d1", here), dray.NewPosition("d2", here))
	w.holds(t, "d1", "d2")
	// a message is lost: the number moves on and d2 goes, but the feed says nothing
	key := a.store.RecordsKey(location.BucketAt(here))
	for _, command := range [][]any{{"hdel", key, "d2"}, {"hincrby", key, "#", 1}} {
		if err := server.Do(t, command...); err == nil {
			t.Fatalf("%v failed", command)
		}
	}
	a.report(t, dray.NewPosition("d1", here)) // the next message shows the gap
	w.holds(t, "d1")
	a.report(t, dray.NewPosition("d3", here))
	w.holds(t, "d1", "d3")
}

// While a node's feed is cut, others go on; when it is back, a snapshot tells.
func TestCutFeedHeals(t *testing.T) {
	server := redistest.Start(t)
	a, b := pair(t, server, 0)
	w := b.watch(t, "w", city, nil, 0)
	defer w.close()
	ids := b.watch(t, "ids", dray.Shape{Drivers: []string{"d1", "d9"}}, nil, 0)
	defer ids.close()
	a.report(t, dray.NewPosition("d1", here))
	w.holds(t, "d1")
	for i := range 5 {
		server.Do(t, "client", "kill", "type", "pubsub")
		a.report(t, dray.NewPosition("d1", there), dray.NewPosition(fmt.Sprint("new", i), here))
		server.Do(t, "client", "kill", "type", "pubsub")
		a.report(t, dray.NewPosition("d9", there))
		want := []string{}
		for j := range i + 1 {
			want = append(want, fmt.Sprint("new", j))
		}
		w.holds(t, want...)
		ids.holds(t, "d1", "d9")
		a.report(t, dray.NewPosition("d1", here))
		w.holds(t, append(want, "d1")...)
	}
}

// A Redis that hangs for a while, and one that comes back empty.
func TestFrozenAndRestartedRedis(t *testing.T) {
	server := redistest.Start(t)
	a, b := pair(t, server, 0)
	w := b.watch(t, "w", city, nil, 0)
	defer w.close()
	a.report(t, dray.NewPosition("d1", here))
	w.holds(t, "d1")

	server.Freeze()
	settle(t, "a frozen Redis is noticed", func() string {
		if b.hub.Ready() == nil {
			return "the hub is ready"
		}
		return ""
	})
	results, err := a.store.Report(t.Context(), []dray.Position{dray.NewPosition("d2", here)})
	if err != nil || !errors.Is(results[0].Err, dray.ErrUnavailable) {
		t.Errorf("Report to a frozen Redis = %v, %v, want ErrUnavailable", results, err)
	}
	server.Thaw()
	settle(t, "ready again", func() string {
		if err := b.hub.Ready(); err != nil {
			return err.Error()
		}
		return ""
	})
	a.report(t, dray.NewPosition("d3", here))
	settle(t, "d3 is there, and d2 may be", func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, in := w.set["d3"]; !in {
			return "d3 is missing"
		}
		return ""
	})

	server.Stop()
	server.Restart(t)
	w.holds(t) // it came back empty
	settle(t, "positions are taken again", func() string {
		results, err := a.store.Report(t.Context(), []dray.Position{dray.NewPosition("d4", here)})
		if err != nil || results[0].Err != nil {
			return fmt.Sprint(err, results)
		}
		return ""
	})
	w.holds(t, "d4")
}

// One encoding of a driver serves every subscription.
func TestSubscriptionsShareOneEncoding(t *testing.T) {
	a, _ := pair(t, redistest.Single(t), 0)
	due := make(chan struct{}, 2)
	var subs [2]*watch.Subscription
	for i := range subs {
		s, err := a.hub.Subscribe(t.Context(), city, nil, watch.Options{Due: func() { due <- struct{}{} }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		subs[i] = s
	}
	var c [2]watch.Change
	<-due
	<-due
	subs[0].Next(&c[0])
	subs[1].Next(&c[1])
	a.report(t, dray.NewPosition("d", here))
	<-due
	<-due
	if !subs[0].Next(&c[0]) || !subs[1].Next(&c[1]) || len(c[0].Entered) != 1 || len(c[1].Entered) != 1 {
		t.Fatalf("changes %+v, want d entered in both", c)
	}
	if &c[0].Entered[0][0] != &c[1].Entered[0][0] {
		t.Error("each subscription has a copy of its own")
	}
}

// However often a driver moves within an interval, and however long nobody takes, there is
// one entry for it.
func TestLatestWins(t *testing.T) {
	a, _ := pair(t, redistest.Single(t), 0)
	due := make(chan struct{}, 1)
	s, err := a.hub.Subscribe(t.Context(), city, nil, watch.Options{Due: func() { due <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	<-due
	var c watch.Change
	s.Next(&c)
	p := dray.NewPosition("d", here)
	other := dray.NewPosition("brief", here)
	a.report(t, p)
	<-due
	for range 50 { // nobody calls Next: Due is not called again
		p.Latitude += 0.0001
		a.report(t, p)
	}
	a.report(t, other)
	if err := a.store.Offline(t.Context(), "brief"); err != nil {
		t.Fatal(err)
	}
	settle(t, "the last position has come", func() string {
		if hits, err := a.hub.Nearby(t.Context(), p.Point(), 1, 10, nil); err != nil || len(hits) != 1 {
			return fmt.Sprint(len(hits), err)
		}
		return ""
	})
	settle(t, "brief has gone", func() string {
		if hits, _ := a.hub.Nearby(t.Context(), here, 5000, 10, nil); len(hits) != 1 {
			return fmt.Sprint(len(hits))
		}
		return ""
	})
	if !s.Next(&c) || len(c.Entered) != 1 || len(c.Moved)+len(c.Left) != 0 || !strings.Contains(string(c.Entered[0]), string(dray.AppendNumber(nil, p.Latitude))) {
		t.Errorf("change = %+v, want d entered at its last place and nothing else", c)
	}
	select {
	case <-due:
		t.Error("Due was called while it was due")
	default:
	}
}

// A node with no room for copies asks Redis.
func TestNearbyWithoutRoom(t *testing.T) {
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb := redistest.Open(t, config)
	store := location.New(location.Config{Redis: rdb})
	hub := watch.New(watch.Config{Redis: rdb, Locations: store, MaxBuckets: 1})
	defer func() {
		hub.Close()
		_ = store.Close(context.Background())
	}()
	n := node{store: store, hub: hub}
	van := dray.NewPosition("van", here)
	van.Attributes = map[string]string{"vehicle": "van"}
	n.report(t, van, dray.NewPosition("far", there), dray.NewPosition("left", here))
	if err := store.Offline(t.Context(), "left"); err != nil {
		t.Fatal(err)
	}
	hits, err := hub.Nearby(t.Context(), here, 40_000, 10, nil)
	if err != nil || len(hits) != 2 || hits[0].Distance > 1 || hits[1].Distance < 20_000 {
		t.Errorf("Nearby = %+v, %v, want van and far", hits, err)
	}
	if hits, err = hub.Nearby(t.Context(), here, 40_000, 10, dray.Filter{"vehicle": {"van"}}); err != nil || len(hits) != 1 {
		t.Errorf("Nearby vans = %+v, %v, want one", hits, err)
	}
	_, err = hub.Subscribe(t.Context(), dray.Shape{Nearby: &dray.Circle{Latitude: 1, Longitude: 1, Radius: 40_000}}, nil, watch.Options{Due: func() {}})
	if !errors.Is(err, dray.ErrUnavailable) {
		t.Errorf("Subscribe without room = %v, want ErrUnavailable", err)
	}
}

// What Redis is asked for is bounded, and asked again for where that does not do: the answers are
// those of a node that has copies.
func TestNearbyWithoutRoomIsExact(t *testing.T) {
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb := redistest.Open(t, config)
	a := newNode(t, rdb, 0)
	hub := watch.New(watch.Config{Redis: rdb, Locations: a.store, MaxBuckets: 1})
	defer hub.Close()
	rnd := rand.New(rand.NewPCG(1, 7))
	fleet := crowd(rnd, 900, 15_000)
	for i := range fleet {
		if i < 300 { // more at one place than are asked for at first
			fleet[i].Latitude, fleet[i].Longitude = here.Latitude, here.Longitude
		}
		if i%90 == 89 {
			fleet[i].Attributes = map[string]string{"vehicle": "van"}
		}
	}
	a.report(t, fleet...)
	for _, filter := range []dray.Filter{nil, {"vehicle": {"van"}}, {"vehicle": {"bike"}}} {
		for _, limit := range []int{1, 7, 400} {
			want, err := a.hub.Nearby(t.Context(), here, 40_000, limit, filter)
			if err != nil {
				t.Fatal(err)
			}
			got, err := hub.Nearby(t.Context(), here, 40_000, limit, filter)
			if err != nil || len(got) != len(want) {
				t.Fatalf("limit %d, %v: %d hits, %v, want %d", limit, filter, len(got), err, len(want))
			}
			for i := range got {
				if g, w := string(got[i].AppendJSON(nil)), string(want[i].AppendJSON(nil)); g != w {
					t.Errorf("limit %d, %v: hit %d is %s, want %s", limit, filter, i, g, w)
				}
			}
		}
	}
}

func TestInvalidShapes(t *testing.T) {
	a, _ := pair(t, redistest.Single(t), 0)
	ring := func(points ...[2]float64) dray.Shape {
		return dray.Shape{Area: &dray.Polygon{Type: "Polygon", Coordinates: [][][2]float64{points}}}
	}
	var many [][2]float64
	for i := range 1001 {
		many = append(many, [2]float64{float64(i) / 10000, 0})
	}
	for name, x := range map[string]struct {
		shape dray.Shape
		want  error
	}{
		"none":                       {dray.Shape{}, dray.ErrBadRequest},
		"two":                        {dray.Shape{Nearby: city.Nearby, Drivers: []string{"d"}}, dray.ErrBadRequest},
		"radius 0":                   {dray.Shape{Nearby: &dray.Circle{}}, dray.ErrBadRequest},
		"radius over 50 km":          {dray.Shape{Nearby: &dray.Circle{Radius: 50_001}}, dray.ErrBadRequest},
		"circle off the map":         {dray.Shape{Nearby: &dray.Circle{Latitude: 86, Radius: 10}}, dray.ErrBadRequest},
		"south over north":           {dray.Shape{Bounds: &dray.Bounds{South: 2, North: 1, East: 1}}, dray.ErrBadRequest},
		"bounds over 500 km":         {dray.Shape{Bounds: &dray.Bounds{North: 4, East: 4}}, dray.ErrTooLarge},
		"bounds round the globe":     {dray.Shape{Bounds: &dray.Bounds{North: 0.1, West: -179.99, East: 179.99}}, dray.ErrTooLarge},
		"open polygon":               {ring([2]float64{0, 0}, [2]float64{1, 0}, [2]float64{1, 1}, [2]float64{0, 1}), dray.ErrBadRequest},
		"polygon of 2 points":        {ring([2]float64{0, 0}, [2]float64{1, 0}, [2]float64{0, 0}), dray.ErrBadRequest},
		"crossing polygon":           {ring([2]float64{0, 0}, [2]float64{1, 1}, [2]float64{1, 0}, [2]float64{0, 1}, [2]float64{0, 0}), dray.ErrBadRequest},
		"polygon of 1001 points":     {ring(many...), dray.ErrTooLarge},
		"polygon over 500 km":        {ring([2]float64{0, 0}, [2]float64{5, 0}, [2]float64{5, 5}, [2]float64{0, 0}), dray.ErrTooLarge},
		"polygon out of range":       {ring([2]float64{0, 89}, [2]float64{1, 91}, [2]float64{0, 91}, [2]float64{0, 89}), dray.ErrBadRequest},
		"no polygon":                 {dray.Shape{Area: &dray.Polygon{Type: "Point"}}, dray.ErrBadRequest},
		"no cell":                    {dray.Shape{Cells: []string{"hello"}}, dray.ErrBadRequest},
		"number that is no cell":     {dray.Shape{Cells: []string{"ffffffffffffffff"}}, dray.ErrBadRequest},
		"501 cells":                  {dray.Shape{Cells: make([]string, 501)}, dray.ErrTooLarge},
		"a cell of half a continent": {dray.Shape{Cells: []string{"8001fffffffffff"}}, dray.ErrTooLarge},
		"501 drivers":                {dray.Shape{Drivers: make([]string, 501)}, dray.ErrTooLarge},
		"a driver that is no id":     {dray.Shape{Drivers: []string{"a b"}}, dray.ErrBadRequest},
		"stock":                      {dray.Shape{Stock: &dray.StockShape{Location: "l"}}, dray.ErrBadRequest},
	} {
		s, err := a.hub.Subscribe(t.Context(), x.shape, nil, watch.Options{Due: func() {}})
		if !errors.Is(err, x.want) {
			t.Errorf("%s: Subscribe(%s) = %v, want %v", name, describe(x.shape)[:min(80, len(describe(x.shape)))], err, x.want)
		}
		if s != nil {
			s.Close()
		}
	}
	w := a.watch(t, "w", city, nil, 0)
	defer w.close()
	if err := w.sub.Update(t.Context(), &dray.Shape{}, nil, func() { t.Error("accepted") }); !errors.Is(err, dray.ErrBadRequest) {
		t.Errorf("Update to nothing = %v, want ErrBadRequest", err)
	}
	a.report(t, dray.NewPosition("d", here))
	w.holds(t, "d") // as before
}

// Holes are out, islands in them are in; a polygon may touch a pole.
func TestPolygonWithHole(t *testing.T) {
	a, _ := pair(t, redistest.Single(t), 0)
	square := func(half float64) [][2]float64 {
		return [][2]float64{
			{here.Longitude - half, here.Latitude - half}, {here.Longitude + half, here.Latitude - half},
			{here.Longitude + half, here.Latitude + half}, {here.Longitude - half, here.Latitude + half}, {here.Longitude - half, here.Latitude - half},
		}
	}
	w := a.watch(t, "donut", dray.Shape{Area: &dray.Polygon{Type: "Polygon", Coordinates: [][][2]float64{square(0.1), square(0.05)}}}, nil, 0)
	defer w.close()
	dough := dray.NewPosition("dough", here)
	dough.Latitude += 0.07
	a.report(t, dray.NewPosition("hole", here), dough)
	w.holds(t, "dough")
	pole := a.watch(t, "pole", dray.Shape{Area: &dray.Polygon{Type: "Polygon", Coordinates: [][][2]float64{{{0, 89}, {120, 89}, {0, 90}, {0, 89}}}}}, nil, 0)
	defer pole.close()
	pole.holds(t)
}
