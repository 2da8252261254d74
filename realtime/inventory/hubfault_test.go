package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn/redistest"
)

// proxied is a stage whose Hub reaches Redis through a proxy.
func proxied(t *testing.T, cfg inventory.HubConfig) (stage, *redistest.Server, *redistest.Proxy) {
	t.Helper()
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server)
	config := server.Config()
	config.KeyPrefix = redistest.Prefix(t)
	a := redistest.Open(t, config)
	config.Host, config.Port = proxy.Node().Host, proxy.Node().Port
	return newStage(t, a, redistest.Open(t, config), cfg), server, proxy
}

// A snapshot follows a cut, and what changed meanwhile is in it, with its events.
func TestCutFeedIsFollowedByASnapshot(t *testing.T) {
	s, _, proxy := proxied(t, inventory.HubConfig{})
	set(t, s.store, "shop", "milk", 5)
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	w.is(t, s.store)
	for range 5 {
		before := w.got()
		proxy.CutAll()
		set(t, s.store, "shop", "milk", 0)
		settle(t, "a snapshot after the cut", func() string {
			if w.got() == before {
				return "none"
			}
			return w.differs(t, s.store)
		})
		set(t, s.store, "shop", "milk", 5)
		w.is(t, s.store)
	}
	var want []string
	for range 5 {
		want = append(want, "milk out 0", "milk back 5")
	}
	w.tells(t, want...)
}

// A master that stands still is noticed. Thawed before its feed is given up it tells what it
// told meanwhile, and after that the rows are read again: they are right either way.
func TestFrozenMaster(t *testing.T) {
	s, server, _ := proxied(t, inventory.HubConfig{})
	set(t, s.store, "shop", "milk", 5)
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	w.is(t, s.store)
	server.Freeze()
	thawed := false
	defer func() {
		if !thawed {
			server.Thaw()
		}
	}()
	settle(t, "the Hub notices", func() string {
		if s.hub.Ready() == nil {
			return "ready"
		}
		return ""
	})
	server.Thaw()
	thawed = true
	if _, err := s.store.Set(t.Context(), "shop", "milk", inventory.Set{Quantity: 6}, inventory.Options{}); err != nil {
		t.Fatal(err)
	}
	w.is(t, s.store)
	settle(t, "ready again", func() string {
		if err := s.hub.Ready(); err != nil {
			return err.Error()
		}
		return ""
	})
}

// Redis comes back without what it had: the rows are gone at the client too.
func TestRedisThatComesBackEmpty(t *testing.T) {
	s, server, _ := proxied(t, inventory.HubConfig{})
	set(t, s.store, "shop", "milk", 5)
	set(t, s.store, "shop", "bread", 5)
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	w.is(t, s.store)
	server.Restart(t)
	settle(t, "stock is set again", func() string {
		if _, err := s.store.Set(t.Context(), "shop", "milk", inventory.Set{Quantity: 1}, inventory.Options{}); err != nil {
			return err.Error()
		}
		return ""
	})
	w.is(t, s.store)
}

// The master of a location is killed under load: what its replica has is then what the watchers have.
func TestWatchersThroughAFailoverOfTheCluster(t *testing.T) {
	t.Parallel() // it mostly waits
	servers := redistest.StartCluster(t, false)
	config := servers.Config()
	config.ReadTimeout, config.Logger = 500*time.Millisecond, quiet
	s := newStage(t, redistest.Open(t, config), redistest.Open(t, config), inventory.HubConfig{Logger: quiet})
	const skus = 20
	locations := []string{"shop-0", "shop-1", "shop-2", "shop-3"} // on several masters
	var watchers []*watcher
	for _, location := range locations {
		for i := range skus {
			set(t, s.store, location, fmt.Sprint("sku-", i), 1000)
		}
		for _, shape := range []dray.StockShape{{Location: location, Low: 995}, {Location: location, SKUs: []string{"sku-1", "sku-7", "new"}}} {
			w := watch(t, s.hub, shape, 20*time.Millisecond)
			defer w.close()
			w.is(t, s.store)
			w.mu.Lock()
			w.lossy = true
			w.mu.Unlock()
			watchers = append(watchers, w)
		}
	}
	// a reservation may be lost with the master, or end before it is released
	bearable := []dray.Code{dray.CodeUnavailable, dray.CodeNotFound, dray.CodeReservationExpired}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	var written [4]atomic.Int64 // changes of each location
	for i, location := range locations {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-time.After(2 * time.Millisecond): // a dead master refuses at once
				}
				sku, none := fmt.Sprint("sku-", n%skus), inventory.Options{}
				r, err := s.store.ReserveFor(t.Context(), location, cart(sku, 1), 100*time.Millisecond, none)
				if err == nil && n%2 == 0 {
					_, err = s.store.Release(t.Context(), r.Reservation, nil, none)
				}
				if err == nil {
					written[i].Add(1)
				} else if !slices.Contains(bearable, dray.CodeOf(err)) {
					t.Errorf("a change of %s = %v", location, err)
				}
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		for i := range written {
			from := written[i].Load()
			eventually(t, locations[i]+" changes", func() bool { return written[i].Load() >= from+n })
		}
	}
	more(200)
	before := watchers[0].got()
	master := servers.Master(s.rdb.Tag(s.rdb.Partition(locations[0])))
	master.Stop()
	more(200)
	master.Restart(t) // it is a replica now
	more(50)
	set(t, s.store, locations[0], "new", 1)
	stop()
	writers.Wait()
	for _, w := range watchers {
		settle(t, w.name, func() string { return w.differs(t, s.store) })
	}
	if watchers[0].got() == before {
		t.Error("no snapshot followed the failover")
	}
}

// A message that is lost without a cut shows as a gap.
func TestLostMessageIsAGap(t *testing.T) {
	s, _ := tapped(t, inventory.HubConfig{})
	set(t, s.store, "shop", "milk", 5)
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	some := watch(t, s.hub, dray.StockShape{Location: "shop", SKUs: []string{"milk", "bread"}}, 0)
	defer some.close()
	other := watch(t, s.hub, dray.StockShape{Location: "other"}, 0)
	defer other.close()
	for _, x := range []*watcher{w, some, other} {
		settle(t, "first snapshots", func() string {
			if x.got() == 0 {
				return x.name
			}
			return ""
		})
	}
	s.setUntold(t, "shop", "milk", 2)
	set(t, s.store, "shop", "bread", 1)
	w.is(t, s.store)
	some.is(t, s.store)
	if w.got() != 2 || some.got() != 2 || other.got() != 1 {
		t.Errorf("%d, %d and %d snapshots, want 2, 2 and 1", w.got(), some.got(), other.got())
	}
}

// The same while the location is read: the row comes after it was read.
func TestLostMessageWhileReadingIsAGap(t *testing.T) {
	s, x := tapped(t, inventory.HubConfig{})
	set(t, s.store, "shop", "milk", 5)
	heard := watch(t, s.hub, dray.StockShape{Location: "other"}, 0) // on the same feed, in order
	defer heard.close()
	var once sync.Once
	after := func(cmd redis.Cmder) {
		if cmd.Name() == "hscan" {
			once.Do(func() {
				s.setUntold(t, "shop", "milk", 2)
				set(t, s.store, "shop", "bread", 1)
				set(t, s.store, "other", "cue", 1)
				heard.is(t, s.store)
			})
		}
	}
	x.after.Store(&after)
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	w.is(t, s.store)
}

// The same where the location has grown meanwhile over what the node may hold: who waits is told.
func TestGapWhileReadingWhatNoLongerFits(t *testing.T) {
	s, x := tapped(t, inventory.HubConfig{MaxSKUs: 2})
	set(t, s.store, "shop", "milk", 5)
	heard := watch(t, s.hub, dray.StockShape{Location: "other"}, 0)
	var once sync.Once
	after := func(cmd redis.Cmder) {
		if cmd.Name() == "hscan" {
			once.Do(func() {
				s.setUntold(t, "shop", "milk", 2)
				set(t, s.store, "shop", "bread", 1)
				set(t, s.store, "other", "cue", 1)
				heard.is(t, s.store)
			})
		}
	}
	x.after.Store(&after)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := s.hub.Subscribe(ctx, dray.StockShape{Location: "shop"}, inventory.WatchOptions{Due: func() {}})
	if ctx.Err() != nil || !errors.Is(err, dray.ErrUnavailable) {
		t.Errorf("Subscribe() = %v, %v, want ErrUnavailable before ctx ends", err, ctx.Err())
	}
	heard.close()
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	w.is(t, s.store)
	set(t, s.store, "shop", "milk", 3)
	w.is(t, s.store)
}

// A read that a cut made worthless comes back last.
func TestReadThatIsOvertaken(t *testing.T) {
	server := redistest.Start(t)
	config := server.Config()
	b, x := redistest.Open(t, config), new(tap)
	b.Redis().AddHook(x)
	s := newStage(t, redistest.Open(t, config), b, inventory.HubConfig{})
	set(t, s.store, "shop", "milk", 5)
	var reads atomic.Int64
	live, late := make(chan struct{}), make(chan struct{})
	after := func(cmd redis.Cmder) {
		if cmd.Name() != "hscan" || reads.Add(1) > 1 {
			return
		}
		defer close(late)
		server.Do(t, "client", "kill", "type", "pubsub")
		set(t, s.store, "shop", "milk", 4)
		<-live
	}
	x.after.Store(&after)
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	close(live)
	<-late
	for n := range int64(20) {
		w.is(t, s.store)
		set(t, s.store, "shop", "milk", n)
	}
}

// setUntold sets a quantity as apply.lua does, but for the message.
func (s stage) setUntold(t *testing.T, location, sku string, quantity int64) {
	t.Helper()
	stock, err := s.store.Get(t.Context(), location, sku)
	if err != nil {
		t.Fatal(err)
	}
	key := s.rdb.Prefix() + "{" + s.rdb.Tag(0) + "}:inv:" + location + ":stock"
	row := fmt.Sprint(quantity, " ", stock.Reserved, " ", stock.Version+1, " ", stock.LastUpdated.UnixMilli())
	if err := s.rdb.Redis().HSet(t.Context(), key, sku, row, "#", stock.Version+1).Err(); err != nil {
		t.Fatal(err)
	}
}

// A tap sees each command of a client: before it, where an error fails it, and when its reply
// has come, which nobody has seen yet.
type tap struct {
	before atomic.Pointer[func(redis.Cmder) error]
	after  atomic.Pointer[func(redis.Cmder)]
}

func (x *tap) DialHook(next redis.DialHook) redis.DialHook { return next }

func (x *tap) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if f := x.before.Load(); f != nil {
			if err := (*f)(cmd); err != nil {
				cmd.SetErr(err)
				return err
			}
		}
		err := next(ctx, cmd)
		if f := x.after.Load(); f != nil {
			(*f)(cmd)
		}
		return err
	}
}

func (x *tap) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// tapped is a stage whose Hub's client has a tap.
func tapped(t *testing.T, cfg inventory.HubConfig) (stage, *tap) {
	t.Helper()
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	b, x := redistest.Open(t, config), new(tap)
	b.Redis().AddHook(x)
	return newStage(t, redistest.Open(t, config), b, cfg), x
}

// Changes between the pieces of a read: the greater version wins.
func TestChangesWhileALargeLocationIsRead(t *testing.T) {
	s, x := tapped(t, inventory.HubConfig{})
	const skus = 3000
	var all sync.WaitGroup
	for i := range skus {
		all.Go(func() {
			if _, err := s.store.Set(t.Context(), "shop", fmt.Sprint("sku", i), inventory.Set{Quantity: 1}, inventory.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	var pieces atomic.Int64
	before := func(cmd redis.Cmder) error {
		if cmd.Name() == "hscan" {
			n := pieces.Add(1)
			for i := range 20 {
				set(t, s.store, "shop", fmt.Sprint("sku", (int(n)*1009+i*151)%skus), 2+n)
			}
			set(t, s.store, "shop", fmt.Sprint("new", n), 1)
		}
		return nil
	}
	x.before.Store(&before)
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	w.is(t, s.store)
	if pieces.Load() < 3 {
		t.Errorf("read in %d pieces, want 3 or more", pieces.Load())
	}
}

func TestRoomAndLinger(t *testing.T) {
	s, x := tapped(t, inventory.HubConfig{MaxLocations: 2, MaxSKUs: 3, Linger: time.Minute})
	for _, location := range []string{"a", "b", "c"} {
		set(t, s.store, location, "one", 1)
	}
	for i := range 4 {
		set(t, s.store, "large", fmt.Sprint(i), 1)
	}
	options := inventory.WatchOptions{Due: func() {}}
	a := watch(t, s.hub, dray.StockShape{Location: "a"}, 0)
	defer a.close()
	b := watch(t, s.hub, dray.StockShape{Location: "b"}, 0)
	if _, err := s.hub.Subscribe(t.Context(), dray.StockShape{Location: "c"}, options); !errors.Is(err, dray.ErrUnavailable) {
		t.Errorf("Subscribe to a third location = %v, want ErrUnavailable", err)
	}
	b.close() // makes room, for it is not used
	if err := a.sub.Update(t.Context(), dray.StockShape{Location: "large"}, func() { t.Error("accepted") }); !errors.Is(err, dray.ErrUnavailable) {
		t.Errorf("Update to more SKUs than fit = %v, want ErrUnavailable", err)
	}
	a.is(t, s.store) // as before
	c := watch(t, s.hub, dray.StockShape{Location: "c"}, 0)
	defer c.close()
	c.is(t, s.store)

	// A read that fails fails those who wait for it, and nobody later.
	c.update(t, dray.StockShape{Location: "a"})
	var fails atomic.Bool
	before := func(cmd redis.Cmder) error {
		if fails.Load() && strings.HasPrefix(cmd.Name(), "h") {
			return errors.New("i/o timeout")
		}
		return nil
	}
	x.before.Store(&before)
	fails.Store(true)
	if _, err := s.hub.Subscribe(t.Context(), dray.StockShape{Location: "b"}, options); err == nil {
		t.Error("Subscribe while reads fail = nil")
	}
	fails.Store(false)
	c.update(t, dray.StockShape{Location: "b"})
	c.is(t, s.store)
}

// A location that nobody watches any more is let go after Linger, and can be watched again.
func TestLinger(t *testing.T) {
	s, x := tapped(t, inventory.HubConfig{Linger: time.Millisecond})
	set(t, s.store, "shop", "milk", 1)
	var reads atomic.Int64
	before := func(cmd redis.Cmder) error {
		if cmd.Name() == "hscan" {
			reads.Add(1)
		}
		return nil
	}
	x.before.Store(&before)
	settle(t, "the location is read again", func() string {
		w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
		defer w.close()
		w.is(t, s.store)
		if n := reads.Load(); n < 3 {
			return fmt.Sprint(n, " reads")
		}
		return ""
	})
}

func TestStockShapesThatAreRefused(t *testing.T) {
	s, _ := tapped(t, inventory.HubConfig{})
	w := watch(t, s.hub, dray.StockShape{Location: "shop"}, 0)
	defer w.close()
	for name, x := range map[string]struct {
		shape dray.StockShape
		want  error
	}{
		"no location":        {dray.StockShape{}, dray.ErrBadRequest},
		"location no id":     {dray.StockShape{Location: "a{b"}, dray.ErrBadRequest},
		"501 SKUs":           {dray.StockShape{Location: "a", SKUs: make([]string, 501)}, dray.ErrTooLarge},
		"a SKU that is none": {dray.StockShape{Location: "a", SKUs: []string{"#"}}, dray.ErrBadRequest},
		"low below 0":        {dray.StockShape{Location: "a", Low: -1}, dray.ErrBadRequest},
		"low over the most":  {dray.StockShape{Location: "a", Low: dray.MaxQuantity + 1}, dray.ErrBadRequest},
	} {
		if _, err := s.hub.Subscribe(t.Context(), x.shape, inventory.WatchOptions{Due: func() {}}); !errors.Is(err, x.want) {
			t.Errorf("%s: Subscribe = %v, want %v", name, err, x.want)
		}
		if err := w.sub.Update(t.Context(), x.shape, func() { t.Error("accepted") }); !errors.Is(err, x.want) {
			t.Errorf("%s: Update = %v, want %v", name, err, x.want)
		}
	}
	if _, err := s.hub.Subscribe(t.Context(), dray.StockShape{Location: "a"}, inventory.WatchOptions{Interval: -1, Due: func() {}}); !errors.Is(err, dray.ErrBadRequest) {
		t.Errorf("Subscribe at interval -1 = %v, want ErrBadRequest", err)
	}
}
