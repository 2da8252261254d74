package watch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn/redistest"
)

// A tap sees the commands of one client: before may make them fail, after may hold up their
// replies.
type tap struct {
	mu     sync.Mutex // guards the fields below
	before func(cmds []redis.Cmder) error
	after  func(cmds []redis.Cmder)
}

func (x *tap) set(before func(cmds []redis.Cmder) error, after func(cmds []redis.Cmder)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.before, x.after = before, after
}

func (x *tap) DialHook(next redis.DialHook) redis.DialHook { return next }

func (x *tap) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return x.see([]redis.Cmder{cmd}, func() error { return next(ctx, cmd) })
	}
}

func (x *tap) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return x.see(cmds, func() error { return next(ctx, cmds) })
	}
}

func (x *tap) see(cmds []redis.Cmder, run func() error) error {
	x.mu.Lock()
	before, after := x.before, x.after
	x.mu.Unlock()
	if before != nil {
		if err := before(cmds); err != nil {
			for _, c := range cmds {
				c.SetErr(err)
			}
			return err
		}
	}
	err := run()
	if after != nil {
		after(cmds)
	}
	return err
}

func has(cmds []redis.Cmder, name, arg string) bool {
	for _, c := range cmds {
		if c.Name() == name && strings.Contains(fmt.Sprint(c.Args()...), arg) {
			return true
		}
	}
	return false
}

var beyond = dray.Point{Latitude: 30.75, Longitude: -97.60} // a third bucket

// tapped is two nodes, the second with a tap, little linger, and room for max buckets.
func tapped(t *testing.T, server *redistest.Server, max int) (a, b node, x *tap) {
	t.Helper()
	config := server.Config()
	config.KeyPrefix = redistest.Prefix(t)
	a = newNode(t, redistest.Open(t, config), 0)
	rdb := redistest.Open(t, config)
	store := location.New(location.Config{Redis: rdb})
	hub := watch.New(watch.Config{Redis: rdb, Locations: store, Linger: 50 * time.Millisecond, MaxBuckets: max})
	t.Cleanup(func() {
		hub.Close()
		_ = store.Close(context.Background())
	})
	x = &tap{}
	rdb.Redis().AddHook(x)
	return a, node{store: store, hub: hub}, x
}

// at waits until w holds a driver at a place.
func (w *watcher) at(t *testing.T, id string, p dray.Point) {
	t.Helper()
	settle(t, fmt.Sprintf("%s holds %s at %v", w.name, id, p), func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.faults) > 0 {
			return "fault: " + w.faults[0]
		}
		if d, in := w.set[id]; !in || d.Point() != p {
			return fmt.Sprintf("in %v, at %v", in, d.Point())
		}
		return ""
	})
}

func TestFollowedDriverWhoseBucketCouldNotBeRead(t *testing.T) {
	a, b, x := tapped(t, redistest.Single(t), 0)
	var fails atomic.Int32
	key := a.store.RecordsKey(location.BucketAt(there))
	x.set(func(cmds []redis.Cmder) error {
		if has(cmds, "hgetall", key) && fails.Add(1) == 1 {
			return errors.New("i/o timeout")
		}
		return nil
	}, nil)
	a.report(t, dray.NewPosition("d", here))
	w := b.watch(t, "w", dray.Shape{Drivers: []string{"d"}}, nil, 0)
	defer w.close()
	w.at(t, "d", here)
	a.report(t, dray.NewPosition("d", there)) // the one who looks after it fails once
	w.at(t, "d", there)
	other := b.watch(t, "other", dray.Shape{Drivers: []string{"d"}}, nil, 0)
	defer other.close()
	other.at(t, "d", there)
}

// A crossing in Cluster that was cut before the directory heard of it: who follows the driver
// from then on is led to its new bucket by what it left in the old one.
func TestFollowedDriverOfACutCrossing(t *testing.T) {
	config := redistest.Cluster(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb, x := redistest.Open(t, config), &tap{}
	rdb.Redis().AddHook(x)
	a, b := newNode(t, rdb, time.Minute), newNode(t, redistest.Open(t, config), time.Minute)
	a.report(t, dray.NewPosition("d", here))
	var claims atomic.Int32
	x.set(func(cmds []redis.Cmder) error {
		if has(cmds, "evalsha", ":feed:dir") && claims.Add(1) == 2 {
			return errors.New("i/o timeout")
		}
		return nil
	}, nil)
	results, err := a.store.Report(t.Context(), []dray.Position{dray.NewPosition("d", there)})
	if err != nil || results[0].Outcome != location.Refused {
		t.Fatalf("Report = %v, %v, want a crossing that is cut", results, err)
	}
	w := b.watch(t, "d", dray.Shape{Drivers: []string{"d"}}, nil, 0)
	defer w.close()
	w.at(t, "d", there)
}

// While the feed is cut a driver goes from bucket to bucket; what each says of it comes back
// in any order.
func TestFollowedDriverThatMovesWhileTheFeedIsCut(t *testing.T) {
	server := redistest.Start(t)
	a, b, _ := tapped(t, server, 0)
	for i := range 5 {
		id := fmt.Sprint("d", i)
		a.report(t, dray.NewPosition(id, here))
		w := b.watch(t, id, dray.Shape{Drivers: []string{id}}, nil, 0)
		w.at(t, id, here)
		server.Do(t, "client", "kill", "type", "pubsub")
		a.report(t, dray.NewPosition(id, there))
		a.report(t, dray.NewPosition(id, beyond))
		w.at(t, id, beyond)
		// what is not held any more goes after Linger; the driver must not go with it
		settle(t, "buckets that nobody uses are detached", func() string {
			s, err := b.hub.Subscribe(t.Context(), dray.Shape{Nearby: &dray.Circle{Latitude: -30, Longitude: float64(i), Radius: 1}}, nil, watch.Options{Due: func() {}})
			if err != nil {
				return err.Error()
			}
			s.Close()
			return ""
		})
		p := beyond
		for range 5 {
			p.Latitude += 0.0001
			a.report(t, dray.NewPosition(id, p))
			w.at(t, id, p)
		}
		w.close()
	}
}

func TestAnswerOfTheDirectoryThatIsOvertaken(t *testing.T) {
	a, b, x := tapped(t, redistest.Single(t), 0)
	a.report(t, dray.NewPosition("d", here))
	w := b.watch(t, "w", dray.Shape{Drivers: []string{"d"}}, nil, 0)
	defer w.close()
	w.at(t, "d", here)
	var once atomic.Bool
	x.set(nil, func(cmds []redis.Cmder) {
		if cmds[0].Name() == "hmget" && once.CompareAndSwap(false, true) { // it moves while the answer is on its way
			a.report(t, dray.NewPosition("d", there))
			w.at(t, "d", there)
		}
	})
	other := b.watch(t, "other", dray.Shape{Drivers: []string{"d", "e"}}, nil, 0)
	defer other.close()
	p := there
	for range 5 {
		p.Latitude += 0.0001
		a.report(t, dray.NewPosition("d", p))
		w.at(t, "d", p)
		other.at(t, "d", p)
	}
}

func TestFeedCutWhileABucketIsRead(t *testing.T) {
	server := redistest.Start(t)
	a, b, x := tapped(t, server, 0)
	a.report(t, dray.NewPosition("gone", here))
	probe := b.watch(t, "elsewhere", dray.Shape{Nearby: &dray.Circle{Latitude: -30, Radius: 1}}, nil, 0)
	defer probe.close()
	version := func() uint64 {
		probe.mu.Lock()
		defer probe.mu.Unlock()
		return probe.version
	}
	var once atomic.Bool
	x.set(nil, func(cmds []redis.Cmder) {
		if !has(cmds, "hgetall", a.store.RecordsKey(location.BucketAt(here))) || !once.CompareAndSwap(false, true) {
			return
		}
		before := version() // the reply is on its way
		server.Do(t, "client", "kill", "type", "pubsub")
		a.report(t, dray.NewPosition("new", here))
		if err := a.store.Offline(context.Background(), "gone"); err != nil {
			t.Error(err)
		}
		settle(t, "the feed is back", func() string { // others got their snapshot
			if version() == before {
				return "not yet"
			}
			return ""
		})
	})
	w := b.watch(t, "w", city, nil, 0)
	defer w.close()
	w.holds(t, "new")
}

func TestForeignKeyHarmsNoOtherBucket(t *testing.T) {
	server := redistest.Start(t)
	a, b, _ := tapped(t, server, 0)
	w := b.watch(t, "w", city, nil, 0)
	defer w.close()
	foreign := b.watch(t, "foreign", dray.Shape{Nearby: &dray.Circle{Latitude: -30, Longitude: 10, Radius: 1000}}, nil, 0)
	defer foreign.close()
	server.Do(t, "set", a.store.RecordsKey(location.BucketAt(dray.Point{Latitude: -30, Longitude: 10})), "not a hash")
	server.Do(t, "client", "kill", "type", "pubsub")
	a.report(t, dray.NewPosition("d", here))
	w.holds(t, "d")
}

// Buckets of questions that were asked make room for subscriptions; where there is none, a
// driver that goes there is out of the sets it was in, and is found when there is room.
func TestRoomIsMadeAndWaitedFor(t *testing.T) {
	_, b, _ := tapped(t, redistest.Single(t), 4)
	for i := range 20 {
		if _, err := b.hub.Nearby(t.Context(), dray.Point{Latitude: -30, Longitude: float64(i)}, 1, 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	b.report(t, dray.NewPosition("d", here))
	spot := dray.Shape{Nearby: &dray.Circle{Latitude: here.Latitude, Longitude: here.Longitude, Radius: 10}}
	place := b.watch(t, "place", spot, nil, 0)
	defer place.close()
	ids := b.watch(t, "ids", dray.Shape{Drivers: []string{"d"}}, nil, 0)
	defer ids.close()
	place.holds(t, "d")
	var others []*watch.Subscription
	for i := 0; ; i++ {
		s, err := b.hub.Subscribe(t.Context(), dray.Shape{Nearby: &dray.Circle{Latitude: -40, Longitude: float64(i * 5), Radius: 1}}, nil, watch.Options{Due: func() {}})
		if err != nil {
			if !errors.Is(err, dray.ErrUnavailable) {
				t.Fatal(err)
			}
			break
		}
		others = append(others, s)
	}
	b.report(t, dray.NewPosition("d", beyond))
	place.holds(t)
	for _, s := range others {
		s.Close()
	}
	ids.at(t, "d", beyond)
}
