package location

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// Crossings in Cluster under schedules that the test decides: each trip to Redis of each node
// waits until it is let through.

// Four places in four buckets.
var places = []dray.Point{
	{Latitude: 30.2672, Longitude: -97.7431},
	{Latitude: 30.5083, Longitude: -97.6789},
	{Latitude: 30.7500, Longitude: -97.6000},
	{Latitude: 30.0500, Longitude: -97.8500},
}

var errNodeDied = errors.New("the node died")

// A node stands for one that reports positions of a driver. It is one goroutine, which runs
// only between step and the next trip to Redis.
type node struct {
	store    *Store
	driver   string
	base     int64
	trips    chan struct{} // the node is about to make a trip
	steps    chan error    // let it; an error: the node has died
	dead     bool
	finished bool
	told     []told
}

type told struct {
	place, ms int
	outcome   Outcome
	err       error
}

type nodeKey struct{}

// gate holds back the trips of nodes, and no others.
type gate struct{}

func (gate) DialHook(next redis.DialHook) redis.DialHook { return next }

func (gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := pass(ctx); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := pass(ctx); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		return next(ctx, cmds)
	}
}

func pass(ctx context.Context) error {
	n, ok := ctx.Value(nodeKey{}).(*node)
	if !ok {
		return nil
	}
	if n.dead {
		return errNodeDied
	}
	n.trips <- struct{}{}
	err := <-n.steps
	n.dead = err != nil
	return err
}

// start has the node report the driver at places, each at its time, one after the other, up
// to the first trip.
func (n *node) start(all *sync.WaitGroup, reports ...told) {
	n.trips, n.steps = make(chan struct{}), make(chan error)
	all.Go(func() {
		defer close(n.trips)
		for _, r := range reports {
			if n.report(r); n.dead {
				return
			}
		}
	})
	n.wait()
}

func (n *node) wait() {
	_, more := <-n.trips
	n.finished = !more
}

// step lets the node make its next trip, if it has one left, or has it die before that.
func (n *node) step(err error) {
	if !n.finished {
		n.steps <- err
		n.wait()
	}
}

func (n *node) report(r told) {
	ctx := context.WithValue(context.Background(), nodeKey{}, n)
	p := dray.NewPosition(n.driver, places[r.place])
	p.Timestamp = time.UnixMilli(n.base + int64(r.ms))
	rep := encoded(n.store, &p)
	outcomes, err := n.store.partitions[n.store.keys.ofBucket(rep.bucket)].call(ctx, []report{rep})
	switch {
	case err != nil:
		r.outcome, r.err = Refused, err
	case outcomes == "s":
		r.outcome = Stored
	case outcomes == "o":
		r.outcome = Superseded
	default:
		n.store.cross(ctx, []crossing{{driver: n.driver, bucket: rep.bucket, at: rep.at}}, func(_ int, o Outcome, err error) {
			r.outcome, r.err = o, err
		})
	}
	n.told = append(n.told, r)
}

// now lets the node report, all at once.
func (n *node) now(t *testing.T, place, ms int) Outcome {
	t.Helper()
	var all sync.WaitGroup
	n.told = nil
	for n.start(&all, told{place: place, ms: ms}); !n.finished; {
		n.step(nil)
	}
	all.Wait()
	if err := n.told[0].err; err != nil {
		t.Errorf("report at place %d of time %d: %v", place, ms, err)
	}
	return n.told[0].outcome
}

// A scene is one driver and nodes that report it.
type scene struct {
	*testing.T
	store *Store
	rdb   *redisconn.Client
	nodes []*node
	all   sync.WaitGroup
	trace bool // show each step
}

func newScene(t *testing.T, s *Store, driver string, nodes int) *scene {
	sc := &scene{T: t, store: s, rdb: s.cfg.Redis}
	base := time.Now().UnixMilli() - 1000
	for range nodes {
		sc.nodes = append(sc.nodes, &node{store: s, driver: driver, base: base})
	}
	return sc
}

// live tells at which places the driver is live, and those of them whose record is not settled.
func (sc *scene) live() (live, unsettled []int) {
	for i, p := range places {
		held := sc.rdb.Redis().HGet(sc.Context(), sc.store.keys.records(sc.store.buckets.at(p)), sc.nodes[0].driver).Val()
		if strings.HasPrefix(held, recordHead) {
			live = append(live, i)
			if strings.HasSuffix(held, " ") {
				unsettled = append(unsettled, i)
			}
		}
	}
	return live, unsettled
}

// wantLast wants the driver at one place, at a time.
func (sc *scene) wantLast(place, ms int) {
	sc.Helper()
	d, ok, err := sc.store.Last(sc.Context(), sc.nodes[0].driver)
	if err != nil || !ok || d.Point() != places[place] || d.Timestamp.UnixMilli() != sc.nodes[0].base+int64(ms) {
		sc.Errorf("Last = %+v, %v, %v, want place %d at %d", d, ok, err, place, ms)
	}
}

// dump shows what Redis holds of the driver.
func (sc *scene) dump() {
	name := strings.NewReplacer(strconv.FormatInt(sc.nodes[0].base/1000, 10), "")
	key := sc.store.keys.dir(sc.store.keys.ofDriver(sc.nodes[0].driver))
	for i, p := range places {
		b := sc.store.buckets.at(p)
		sc.Logf("place %d, bucket %v: %s", i, b, name.Replace(sc.rdb.Redis().HGet(sc.Context(), sc.store.keys.records(b), sc.nodes[0].driver).Val()))
	}
	sc.Logf("directory: %s", name.Replace(sc.rdb.Redis().HGet(sc.Context(), key, sc.nodes[0].driver).Val()))
	if !sc.trace {
		for i, n := range sc.nodes {
			sc.Logf("node %d told %+v", i, n.told)
		}
	}
}

func scheduled(t *testing.T) *Store {
	config := redistest.Cluster(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb := redistest.Open(t, config)
	for _, src := range []string{reportLua, claimLua, leaveLua, settleLua} { // or the first calls take a trip more
		if err := rdb.Redis().ScriptLoad(t.Context(), src).Err(); err != nil {
			t.Fatal(err)
		}
	}
	rdb.Redis().AddHook(gate{})
	s := New(Config{Redis: rdb})
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// A node dies at each of the steps, and the driver's next position comes where it was, where
// it went, or in a third place: from then on it is found there. What the dead node wrote
// before the others could know of it stays until the TTL, unsettled.
func TestCrossingCutAtEachStep(t *testing.T) {
	s := scheduled(t)
	const old, entered, third = 0, 1, 2
	ghosts := map[[2]int][]int{ // {trips made, place of the next position} -> where else it is live
		{1, old}: {entered}, {1, third}: {entered}, {2, old}: {entered},
	}
	for trips := 1; trips <= 5; trips++ {
		for next, name := range []string{"where it was", "where it went", "in a third place"} {
			t.Run(fmt.Sprintf("after %d, next %s", trips, name), func(t *testing.T) {
				sc := newScene(t, s, fmt.Sprintf("d%d.%d", trips, next), 2)
				sc.nodes[1].now(t, old, 0)
				sc.nodes[0].start(&sc.all, told{place: entered, ms: 1})
				for range trips {
					sc.nodes[0].step(nil)
				}
				sc.nodes[0].step(errNodeDied)
				sc.all.Wait()
				if trips == 3 || trips == 4 {
					sc.wantLast(entered, 1) // nobody waits for it, but the old bucket is left
				}
				if o := sc.nodes[1].now(t, next, 2); o != Stored {
					t.Errorf("next position: outcome %v, want Stored", o)
				}
				sc.wantLast(next, 2)
				want := append([]int{next}, ghosts[[2]int{trips, next}]...)
				slices.Sort(want)
				live, unsettled := sc.live()
				if !slices.Equal(live, want) || len(unsettled) != len(want)-1 {
					t.Errorf("live at places %v, unsettled at %v, want %v and all but one unsettled", live, unsettled, want)
				}
				if t.Failed() {
					sc.dump()
				}
			})
		}
	}
}

// Two places have a position of one time, and late crossings into one of them are under way:
// once each saw the tombstone that another had written, and the driver was nowhere.
func TestEqualTimestampsAmongLateCrossings(t *testing.T) {
	s := scheduled(t)
	sc := newScene(t, s, "d", 4)
	for i, r := range []told{{place: 1, ms: 1}, {place: 1, ms: 1}, {place: 1, ms: 2}, {place: 2, ms: 2}} {
		sc.nodes[i].start(&sc.all, r)
	}
	for _, i := range []int{1, 3, 0, 0, 0, 2, 3, 3, 1, 1, 3, 3, 3} {
		sc.nodes[i].step(nil)
	}
	for _, n := range sc.nodes {
		for !n.finished {
			n.step(nil)
		}
	}
	sc.all.Wait()
	sc.check()
	if t.Failed() {
		sc.dump()
	}
}

// A newer crossing stands though a late one comes between its steps, after Offline.
func TestLateCrossingBetweenTheStepsOfANewerOne(t *testing.T) {
	s := scheduled(t)
	sc := newScene(t, s, "d", 2)
	sc.nodes[0].now(t, 0, 0)
	if err := s.Offline(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	sc.nodes[0].start(&sc.all, told{place: 0, ms: 1})
	sc.nodes[0].step(nil)
	sc.nodes[1].start(&sc.all, told{place: 1, ms: 2})
	for range 2 {
		sc.nodes[1].step(nil)
	}
	for _, n := range sc.nodes {
		for !n.finished {
			n.step(nil)
		}
	}
	sc.all.Wait()
	sc.check()
	if t.Failed() {
		sc.dump()
	}
}

// Nodes report one driver at several places at once, in every order of their trips that chance
// finds; some die on the way. The newest position stands, in one bucket, and of equal ones
// just one does. After a death this holds from the next position on; what the dead node
// wrote first may be there until the TTL, unsettled.
func TestRacingCrossings(t *testing.T) {
	s := scheduled(t)
	seeds, first := 400, rand.Uint64()
	if text := os.Getenv("DRAY_SCHEDULE_SEED"); text != "" {
		var err error
		if first, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
		seeds = 1
	}
	if n, err := strconv.Atoi(os.Getenv("DRAY_SCHEDULES")); err == nil {
		seeds = n
	}
	for i := range seeds {
		seed := first + uint64(i)
		if !t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { race(t, s, seed) }) {
			t.Fatalf("replay with DRAY_SCHEDULE_SEED=%d", seed)
		}
	}
}

func race(t *testing.T, s *Store, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	sc := newScene(t, s, fmt.Sprint("d", seed), 2+r.IntN(3))
	sc.trace = os.Getenv("DRAY_SCHEDULE_SEED") != ""
	defer func() {
		if t.Failed() {
			sc.dump()
		}
	}()
	if r.IntN(4) > 0 {
		sc.nodes[0].now(t, r.IntN(len(places)), 0)
	}
	sc.nodes[0].told = nil
	if r.IntN(8) == 0 {
		if err := s.Offline(t.Context(), sc.nodes[0].driver); err != nil {
			t.Fatal(err)
		}
	}
	span := 1 + r.IntN(4) // of times: 1 is all equal
	mortal, deaths := r.IntN(2) == 0, 0
	for _, n := range sc.nodes {
		var reports []told
		for range 1 + r.IntN(2) {
			reports = append(reports, told{place: r.IntN(len(places)), ms: 1 + r.IntN(span)})
		}
		n.start(&sc.all, reports...)
	}
	for {
		var ready []*node
		for _, n := range sc.nodes {
			if !n.finished {
				ready = append(ready, n)
			}
		}
		if len(ready) == 0 {
			break
		}
		var err error
		if mortal && r.IntN(10) == 0 {
			err = errNodeDied
			deaths++
		}
		n := ready[r.IntN(len(ready))]
		n.step(err)
		if sc.trace {
			sc.Logf("step of node %d, %v", slices.Index(sc.nodes, n), err)
			sc.dump()
		}
	}
	sc.all.Wait()
	if deaths == 0 {
		sc.check()
		return
	}
	for _, n := range sc.nodes {
		n.dead = false
	}
	place := r.IntN(len(places))
	if o := sc.nodes[0].now(t, place, 100); o != Stored {
		t.Errorf("next position: outcome %v, want Stored", o)
	}
	sc.wantLast(place, 100)
	live, unsettled := sc.live()
	if len(live)-len(unsettled) != 1 {
		t.Errorf("live at places %v, unsettled at %v, want all but one unsettled", live, unsettled)
	}
}

// check is what holds when no node has died.
func (sc *scene) check() {
	sc.Helper()
	newest, stored := 0, map[told]int{}
	for _, n := range sc.nodes {
		for _, r := range n.told {
			if r.err != nil {
				sc.Errorf("report at place %d of time %d: %v", r.place, r.ms, r.err)
			}
			newest = max(newest, r.ms)
			if r.outcome == Stored {
				stored[told{place: r.place, ms: r.ms}]++
			}
		}
	}
	at := -1
	for r := range stored {
		if r.ms == newest && at >= 0 {
			sc.Errorf("of time %d positions at place %d and %d are told to be stored", newest, at, r.place)
		} else if r.ms == newest {
			at = r.place
		}
	}
	if at < 0 {
		sc.Errorf("no position of time %d is told to be stored", newest)
		return
	}
	sc.wantLast(at, newest)
	if live, unsettled := sc.live(); len(live) != 1 || len(unsettled) > 0 {
		sc.Errorf("live at places %v, unsettled at %v, want one, settled", live, unsettled)
	}
}
