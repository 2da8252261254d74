package inventory_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// A stage is two nodes on one Redis: changes are made on one, and watched on the other.
type stage struct {
	rdb   *redisconn.Client // of the store
	store *inventory.Store
	hub   *inventory.Hub
}

// onStages runs a test on the embedded Redis, a single one and a Cluster. cut cuts every feed.
func onStages(t *testing.T, test func(t *testing.T, s stage, cut func())) {
	t.Run("embedded", func(t *testing.T) {
		rdb := redistest.Open(t, redisconn.Config{KeyPrefix: redistest.Prefix(t)})
		test(t, newStage(t, rdb, rdb, inventory.HubConfig{}), func() {})
	})
	two := func(t *testing.T, config redisconn.Config) stage {
		config.KeyPrefix = redistest.Prefix(t)
		return newStage(t, redistest.Open(t, config), redistest.Open(t, config), inventory.HubConfig{})
	}
	t.Run("single", func(t *testing.T) {
		server := redistest.Single(t)
		test(t, two(t, server.Config()), func() { server.Do(t, "client", "kill", "type", "pubsub") })
	})
	t.Run("cluster", func(t *testing.T) {
		servers := redistest.Cluster(t)
		test(t, two(t, servers.Config()), func() {
			for _, s := range servers.Servers {
				s.Do(t, "client", "kill", "type", "pubsub")
			}
		})
	})
}

func newStage(t testing.TB, a, b *redisconn.Client, cfg inventory.HubConfig) stage {
	t.Helper()
	cfg.Redis = b
	hub := inventory.NewHub(cfg)
	t.Cleanup(hub.Close)
	return stage{a, newStore(t, inventory.Config{Redis: a}), hub}
}

// A watcher is a client of one subscription: it applies changes and checks, at each, what a
// subscription promises.
type watcher struct {
	name string
	sub  *inventory.Subscription
	due  chan struct{}
	done chan struct{}

	mu        sync.Mutex // guards the fields below
	lossy     bool       // Redis may lose what was told: snapshots may hold older rows
	shape     dray.StockShape
	low       int64                 // of the shape before
	rows      map[string]dray.Stock // SKU -> row
	newest    map[string]int64      // location and SKU -> version sent last
	version   uint64
	snapshots int
	events    []string // "<SKU> <event> <available>"
	faults    []string
}

func watch(t testing.TB, hub *inventory.Hub, shape dray.StockShape, interval time.Duration) *watcher {
	t.Helper()
	w := &watcher{name: fmt.Sprint(shape, interval), due: make(chan struct{}, 1), done: make(chan struct{}), shape: shape, low: shape.Low,
		rows: map[string]dray.Stock{}, newest: map[string]int64{}}
	sub, err := hub.Subscribe(t.Context(), shape, inventory.WatchOptions{Interval: interval, Due: func() {
		select {
		case w.due <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		t.Fatalf("Subscribe(%+v) = %v", shape, err)
	}
	w.sub = sub
	go func() {
		defer close(w.done)
		var c inventory.Change
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

func (w *watcher) update(t testing.TB, shape dray.StockShape) {
	t.Helper()
	err := w.sub.Update(t.Context(), shape, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.low, w.shape = w.shape.Low, shape
	})
	if err != nil {
		t.Fatalf("Update(%+v) = %v", shape, err)
	}
}

func (w *watcher) apply(c *inventory.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fault := func(format string, args ...any) {
		w.faults = append(w.faults, fmt.Sprintf("version %d: ", c.Version)+fmt.Sprintf(format, args...))
	}
	if c.Version <= w.version {
		fault("after version %d", w.version)
	}
	w.version = c.Version
	before := w.rows
	w.rows = map[string]dray.Stock{}
	if c.Snapshot {
		w.snapshots++
		if w.lossy {
			clear(w.newest)
		}
	} else {
		for sku, s := range before {
			w.rows[sku] = s
		}
		if len(c.Rows)+len(c.Left) == 0 {
			fault("empty delta")
		}
	}
	for _, l := range c.Left {
		if _, held := w.rows[l.SKU]; !held || c.Snapshot || l.Reason != dray.LeftShape {
			fault("%+v, held %v, snapshot %v", l, held, c.Snapshot)
		}
		delete(w.rows, l.SKU)
	}
	seen := map[string]bool{}
	for _, text := range c.Rows {
		var s dray.Stock
		if err := s.UnmarshalJSON(text); err != nil {
			fault("%s: %v", text, err)
		}
		key := s.Location + " " + s.SKU
		if seen[key] || s.Version < w.newest[key] || !c.Snapshot && s == w.rows[s.SKU] {
			fault("%s: twice %v, newest sent %d, held %+v", text, seen[key], w.newest[key], w.rows[s.SKU])
		}
		seen[key], w.newest[key] = true, s.Version
		w.rows[s.SKU] = s
	}
	var told []string
	for _, e := range c.Events {
		told = append(told, fmt.Sprint(e.SKU, " ", e.Event, " ", e.Available))
	}
	slices.Sort(told)
	w.events = append(w.events, told...)
	// by the threshold of either shape, while an update is on its way
	if a, b := crossings(before, w.rows, w.shape.Low), crossings(before, w.rows, w.low); !slices.Equal(told, a) && !slices.Equal(told, b) {
		fault("events %v, want %v or %v", told, a, b)
	}
}

// crossings are the events between two states, written a second time.
func crossings(before, after map[string]dray.Stock, low int64) (all []string) {
	for sku, now := range after {
		was, held := before[sku]
		if !held || was.Location != now.Location {
			continue
		}
		a, b := was.Available, now.Available
		for _, e := range []struct {
			kind string
			yes  bool
		}{{"out", a > 0 && b == 0}, {"back", a == 0 && b > 0}, {"low", b > 0 && a > low && b <= low}} {
			if e.yes {
				all = append(all, fmt.Sprint(sku, " ", e.kind, " ", b))
			}
		}
	}
	slices.Sort(all)
	return all
}

// differs names the first difference between w's rows and the Store's; "" for none.
func (w *watcher) differs(t testing.TB, store *inventory.Store) string {
	w.mu.Lock()
	shape := w.shape
	w.mu.Unlock()
	want := map[string]dray.Stock{}
	for cursor, more := "", true; more; more = cursor != "" {
		page, next, err := store.List(t.Context(), shape.Location, cursor, dray.MaxLimit)
		if err != nil {
			t.Fatalf("List(%s) = %v", shape.Location, err)
		}
		for _, s := range page {
			if len(shape.SKUs) == 0 || slices.Contains(shape.SKUs, s.SKU) {
				want[s.SKU] = s
			}
		}
		cursor = next
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) > 0 {
		return "fault: " + w.faults[0]
	}
	for sku, s := range want {
		if w.rows[sku] != s {
			return fmt.Sprintf("%+v, want %+v", w.rows[sku], s)
		}
	}
	for sku, s := range w.rows {
		if _, is := want[sku]; !is {
			return fmt.Sprintf("%+v, want no row of %s", s, sku)
		}
	}
	return ""
}

// settle waits until differs is "", as it must be within the promise's 250 ms; the bound here
// is for a machine under load.
func settle(t testing.TB, what string, differs func() string) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		d := differs()
		if d == "" {
			return
		}
		if time.Now().After(deadline) || strings.HasPrefix(d, "fault") {
			t.Fatalf("%s:\n%s", what, d)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// is waits until w holds what the Store has.
func (w *watcher) is(t testing.TB, store *inventory.Store) {
	t.Helper()
	settle(t, w.name, func() string { return w.differs(t, store) })
}

// tells waits until w was told exactly these events.
func (w *watcher) tells(t testing.TB, events ...string) {
	t.Helper()
	settle(t, fmt.Sprintf("%s is told %q", w.name, events), func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		if slices.Equal(w.events, events) {
			return ""
		}
		return fmt.Sprintf("told %q", w.events)
	})
}

func TestEventsCompareFrames(t *testing.T) {
	onStages(t, func(t *testing.T, s stage, _ func()) {
		set(t, s.store, "shop", "milk", 10)
		w := watch(t, s.hub, dray.StockShape{Location: "shop", Low: 3}, 0)
		defer w.close()
		plain := watch(t, s.hub, dray.StockShape{Location: "shop", SKUs: []string{"milk", "milk"}}, 0)
		defer plain.close()
		for _, n := range []int64{4, 3, 2, 0, 2, 5, 1, 0, 7} {
			set(t, s.store, "shop", "milk", n)
			w.is(t, s.store)
			plain.is(t, s.store)
		}
		plain.tells(t, "milk out 0", "milk back 2", "milk out 0", "milk back 7")
		set(t, s.store, "shop", "bread", 0) // has no state before
		w.is(t, s.store)
		w.tells(t, "milk low 3", "milk out 0", "milk back 2", "milk low 1", "milk out 0", "milk back 7")
	})
}

func TestExpiryAtQuietLocationIsTold(t *testing.T) {
	onStages(t, func(t *testing.T, s stage, _ func()) {
		set(t, s.store, "kiosk", "gum", 2)
		w := watch(t, s.hub, dray.StockShape{Location: "kiosk"}, 0)
		defer w.close()
		if _, err := s.store.Reserve(t.Context(), "kiosk", cart("gum", 2), time.Second, inventory.Options{}); err != nil {
			t.Fatal(err)
		}
		w.tells(t, "gum out 0", "gum back 2") // nobody asks the Store
	})
}

func TestLocationWithoutStock(t *testing.T) {
	onStages(t, func(t *testing.T, s stage, _ func()) {
		w := watch(t, s.hub, dray.StockShape{Location: "new"}, 0)
		defer w.close()
		some := watch(t, s.hub, dray.StockShape{Location: "new", SKUs: []string{"b"}}, 0)
		defer some.close()
		settle(t, "empty snapshots", func() string {
			if w.got() == 0 || some.got() == 0 {
				return "not yet"
			}
			return ""
		})
		set(t, s.store, "new", "a", 1)
		set(t, s.store, "new", "b", 1)
		w.is(t, s.store)
		some.is(t, s.store)
	})
}

// got is how many snapshots came.
func (w *watcher) got() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.snapshots
}

func TestUpdateTellsTheDifference(t *testing.T) {
	onStages(t, func(t *testing.T, s stage, _ func()) {
		for _, sku := range []string{"a", "b", "c"} {
			set(t, s.store, "shop", sku, 1)
			set(t, s.store, "other", sku, 2)
		}
		w := watch(t, s.hub, dray.StockShape{Location: "shop", SKUs: []string{"a", "b"}}, 0)
		defer w.close()
		w.is(t, s.store)
		for _, skus := range [][]string{{"b", "c"}, nil, {"d"}, {"a", "d"}} {
			w.update(t, dray.StockShape{Location: "shop", SKUs: skus})
			w.is(t, s.store)
		}
		if n := w.got(); n != 1 {
			t.Errorf("%d snapshots within one location, want 1", n)
		}
		w.update(t, dray.StockShape{Location: "other"})
		w.is(t, s.store)
		if n := w.got(); n != 2 {
			t.Errorf("%d snapshots after another location, want 2", n)
		}
		w.tells(t)
	})
}

// Whoever takes nothing gets the newest rows at last, once each.
func TestSlowReaderGetsTheNewest(t *testing.T) {
	onStages(t, func(t *testing.T, s stage, _ func()) {
		for _, sku := range []string{"a", "b", "c"} {
			set(t, s.store, "shop", sku, 1)
		}
		due := make(chan struct{}, 100)
		sub, err := s.hub.Subscribe(t.Context(), dray.StockShape{Location: "shop", SKUs: []string{"a", "b"}},
			inventory.WatchOptions{Due: func() { due <- struct{}{} }})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		<-due
		var c inventory.Change
		if !sub.Next(&c) || !c.Snapshot || len(c.Rows) != 2 {
			t.Fatalf("first Next = %+v, want a snapshot of 2 rows", c)
		}
		w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0) // tells when all has arrived
		defer w.close()
		for i := range 200 {
			set(t, s.store, "shop", []string{"a", "b", "c"}[i%3], int64(i))
		}
		w.is(t, s.store)
		<-due
		if len(due) > 0 {
			t.Errorf("Due was called %d times more before Next was", len(due))
		}
		if !sub.Next(&c) || c.Snapshot || len(c.Rows) != 2 || c.Version != 2 {
			t.Fatalf("Next after 200 changes = %+v, want a delta of 2 rows", c)
		}
		for _, text := range c.Rows {
			var got dray.Stock
			if err := got.UnmarshalJSON(text); err != nil || got != w.rows[got.SKU] {
				t.Errorf("row %s, %v, want %+v", text, err, w.rows[got.SKU])
			}
		}
		if sub.Next(&c) {
			t.Errorf("Next again = %+v, want nothing", c)
		}
		for _, skus := range [][]string{{"a"}, {"a", "b"}} { // away and back
			if err := sub.Update(t.Context(), dray.StockShape{Location: "shop", SKUs: skus}, func() {}); err != nil {
				t.Fatal(err)
			}
		}
		if sub.Next(&c) {
			t.Errorf("Next after an update that was undone = %+v, want nothing", c)
		}
	})
}

// A counter that somebody spoilt ends at 0 in the row, and at the watchers.
func TestReleaseOfMoreThanTheRowSaysIsReserved(t *testing.T) {
	onStages(t, func(t *testing.T, s stage, _ func()) {
		ctx, none := t.Context(), inventory.Options{}
		set(t, s.store, "kiosk", "gum", 10)
		r, err := s.store.Reserve(ctx, "kiosk", cart("gum", 3), time.Hour, none)
		if err != nil {
			t.Fatal(err)
		}
		w := watch(t, s.hub, dray.StockShape{Location: "kiosk"}, 0)
		defer w.close()
		w.is(t, s.store)
		spoil := func(reserved int64) {
			version := wantStock(t, s.store, "kiosk", "gum", 10, 3-reserved).Version
			s.rdb.Redis().HSet(ctx, s.store.KeysOf("kiosk")[0], "gum", fmt.Sprintf("10 %d %d 1", reserved, version))
		}
		spoil(0)
		if _, err := s.store.Release(ctx, r.Reservation, nil, none); err != nil {
			t.Fatal(err)
		}
		w.is(t, s.store)
		spoil(3) // and once more, for a repair that knows of a negative one
		if _, err := s.store.Audit(ctx, "kiosk", true); err != nil {
			t.Fatal(err)
		}
		w.is(t, s.store)
		if entries, _, err := s.store.Ledger(ctx, "kiosk", "gum", "", 10); err != nil || len(entries) != 4 {
			t.Errorf("Ledger() = %v, %v, want 4 entries", entries, err)
		}
	})
}
