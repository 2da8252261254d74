package claim_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray"
	"dray/realtime/claim"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

var here = dray.Point{Latitude: 30.2672, Longitude: -97.7431}

// A node is one dray node without its edge.
type node struct {
	rdb    *redisconn.Client
	store  *location.Store
	hub    *watch.Hub
	claims *claim.Store
	counts *prometheus.Registry
}

func newNode(t testing.TB, rdb *redisconn.Client) node {
	t.Helper()
	n := node{rdb: rdb, store: location.New(location.Config{Redis: rdb, TTL: time.Hour}), counts: prometheus.NewRegistry()}
	n.hub = watch.New(watch.Config{Redis: rdb, Locations: n.store})
	n.claims = claim.New(claim.Config{Redis: rdb, Near: n.hub, Metrics: n.counts})
	t.Cleanup(func() {
		n.hub.Close()
		if err := n.store.Close(context.Background()); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return n
}

// onEveryRedis runs test on two nodes, of a single Redis and of a Cluster.
func onEveryRedis(t *testing.T, test func(t *testing.T, a, b node)) {
	for name, server := range map[string]func(testing.TB) redisconn.Config{
		"single":  func(t testing.TB) redisconn.Config { return redistest.Single(t).Config() },
		"cluster": func(t testing.TB) redisconn.Config { return redistest.Cluster(t).Config() },
	} {
		t.Run(name, func(t *testing.T) {
			config := server(t)
			config.KeyPrefix = redistest.Prefix(t)
			test(t, newNode(t, redistest.Open(t, config)), newNode(t, redistest.Open(t, config)))
		})
	}
}

// fleet reports n drivers, d1 the nearest to here, 100 m between two.
func (n node) fleet(t testing.TB, count int) {
	t.Helper()
	var fleet []dray.Position
	for i := range count {
		p := dray.NewPosition(fmt.Sprint("d", i+1), dray.Point{Latitude: here.Latitude + float64(i+1)*0.0009, Longitude: here.Longitude})
		p.Attributes = map[string]string{"status": []string{"busy", "free"}[i%2]}
		fleet = append(fleet, p)
	}
	results, err := n.store.Report(t.Context(), fleet)
	if err != nil {
		t.Fatalf("Report() = %v", err)
	}
	for i, r := range results {
		if r.Err != nil {
			t.Fatalf("Report(%+v): %v", fleet[i], r.Err)
		}
	}
}

func request(count int) dray.ClaimRequest {
	return dray.ClaimRequest{Circle: dray.Circle{Latitude: here.Latitude, Longitude: here.Longitude, Radius: 10_000}, Count: count, TTL: time.Hour}
}

func (n node) claim(t testing.TB, r dray.ClaimRequest) dray.Claim {
	t.Helper()
	c, err := n.claims.Claim(t.Context(), "", r)
	if err != nil {
		t.Fatalf("Claim(%+v) = %v", r, err)
	}
	return c
}

func ids(drivers []dray.Driver) string {
	var ids []string
	for _, d := range drivers {
		ids = append(ids, d.Driver)
	}
	return strings.Join(ids, " ")
}

// shows waits until a nearby question to n is answered with just these drivers, nearest first.
func (n node) shows(t testing.TB, want ...string) {
	t.Helper()
	var got string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		hits, err := n.hub.Nearby(t.Context(), here, 10_000, dray.MaxLimit, nil)
		if err != nil {
			t.Fatalf("Nearby() = %v", err)
		}
		var drivers []dray.Driver
		for _, hit := range hits {
			d, err := hit.Driver()
			if err != nil || d.Claimed {
				t.Fatalf("a hit is %+v, %v", d, err)
			}
			drivers = append(drivers, d)
		}
		if got = ids(drivers); got == strings.Join(want, " ") {
			return
		}
	}
	t.Errorf("Nearby() shows %s, want %v", got, want)
}

func TestTheNearestFreeDriversAreHeld(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, a, b node) {
		a.fleet(t, 6)
		b.shows(t, "d1", "d2", "d3", "d4", "d5", "d6")
		began := time.Now()
		c := a.claim(t, request(2))
		if ids(c.Drivers) != "d1 d2" || c.ExpiresAt.Sub(began) < time.Hour-time.Second || c.ExpiresAt.Sub(began) > time.Hour+time.Minute {
			t.Errorf("Claim() = %+v, want d1 and d2 for an hour", c)
		}
		for i, d := range c.Drivers {
			if want := dray.Distance(here, d.Point()); math.Abs(d.Distance-want) > 0.001 || d.Claimed || d.ReceivedAt.IsZero() {
				t.Errorf("driver %d is %+v, want a whole Driver at %v m", i, d, want)
			}
		}
		b.shows(t, "d3", "d4", "d5", "d6")
		r := request(2)
		r.Filter = dray.Filter{"status": {"free"}}
		if c := b.claim(t, r); ids(c.Drivers) != "d4 d6" {
			t.Errorf("Claim(free) = %s, want d4 and d6", ids(c.Drivers))
		}
		if c := a.claim(t, request(9)); ids(c.Drivers) != "d3 d5" {
			t.Errorf("Claim(9) = %s, want the two that are left", ids(c.Drivers))
		}
		if _, err := b.claims.Claim(t.Context(), "", request(1)); !errors.Is(err, dray.ErrNoneAvailable) {
			t.Errorf("Claim() with nobody left = %v, want ErrNoneAvailable", err)
		}
		if err := b.claims.Unclaim(t.Context(), c.ID); err != nil {
			t.Errorf("Unclaim() = %v", err)
		}
		// at once, whatever the node has heard
		if c := a.claim(t, request(0)); ids(c.Drivers) != "d1" {
			t.Errorf("Claim() after Unclaim() = %s, want d1", ids(c.Drivers))
		}
		a.shows(t, "d2")
		b.shows(t, "d2")
		left, err := b.claims.Held(t.Context(), "d1", "d2", "nobody")
		if err != nil || len(left) != 1 || left["d1"] < time.Hour-time.Minute {
			t.Errorf("Held() = %v, %v, want d1 for an hour", left, err)
		}
	})
}

func TestUnclaimOfWhatIsNotThere(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, a, b node) {
		a.fleet(t, 1)
		c := a.claim(t, request(1))
		if err := b.claims.Unclaim(t.Context(), c.ID); err != nil {
			t.Fatalf("Unclaim() = %v", err)
		}
		for name, x := range map[string]struct {
			id   string
			want error
		}{
			"twice":     {c.ID, dray.ErrNotFound},
			"unknown":   {"nobody", dray.ErrNotFound},
			"empty":     {"", dray.ErrBadRequest},
			"no id":     {"a}b", dray.ErrBadRequest},
			"too long":  {strings.Repeat("a", 257), dray.ErrBadRequest},
			"a newline": {"a\nb", dray.ErrBadRequest},
		} {
			if err := a.claims.Unclaim(t.Context(), x.id); !errors.Is(err, x.want) {
				t.Errorf("%s: Unclaim(%q) = %v, want %v", name, x.id, err, x.want)
			}
		}
	})
}

// When its time is over a driver is free to claim, shown on every node, and its claim is gone.
func TestClaimsExpire(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, a, b node) {
		a.fleet(t, 2)
		b.shows(t, "d1", "d2")
		r := request(1)
		r.TTL = time.Second
		c := a.claim(t, r)
		for left := map[string]time.Duration{"d1": 1}; left["d1"] > 0; time.Sleep(time.Millisecond) {
			var err error
			if left, err = b.claims.Held(t.Context(), "d1"); err != nil {
				t.Fatalf("Held() = %v", err)
			}
		}
		b.shows(t, "d1", "d2")
		if err := a.claims.Unclaim(t.Context(), c.ID); !errors.Is(err, dray.ErrNotFound) {
			t.Errorf("Unclaim() after its time = %v, want ErrNotFound", err)
		}
		if time.Now().Before(c.ExpiresAt) {
			t.Errorf("d1 came free %v before its time", time.Until(c.ExpiresAt))
		}
		if again := b.claim(t, request(1)); ids(again.Drivers) != "d1" {
			t.Errorf("Claim() = %s, want d1 again", ids(again.Drivers))
		}
		if got := testutil.ToFloat64(counter(t, b, "dray_claims_drivers_expired_total")); got != 1 {
			t.Errorf("%v expired drivers counted, want 1", got)
		}
	})
}

// counter finds a counter of n by its name.
func counter(t testing.TB, n node, name string) prometheus.Collector {
	t.Helper()
	families, err := n.counts.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			c := prometheus.NewCounter(prometheus.CounterOpts{Name: "it"})
			c.Add(f.GetMetric()[0].GetCounter().GetValue())
			return c
		}
	}
	t.Fatalf("no metric %s", name)
	return nil
}

// What has ended is cleared away by the claims that come after it.
func TestEndedHoldsDoNotPileUp(t *testing.T) {
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb := redistest.Open(t, config)
	n := newNode(t, rdb)
	n.fleet(t, 1)
	n.shows(t, "d1")
	key := config.KeyPrefix + "{" + rdb.Tag(claim.Partition) + "}:claims"
	const ended = 2000
	for i := range ended {
		if err := rdb.Redis().HSet(t.Context(), key, fmt.Sprint("old", i), "1000 c").Err(); err != nil {
			t.Fatal(err)
		}
	}
	for calls := 1; ; calls++ {
		c := n.claim(t, request(1))
		size := rdb.Redis().HLen(t.Context(), key).Val()
		if most := int64(ended + 2); size > most {
			t.Fatalf("%d fields, want at most %d", size, most)
		}
		if size < ended/2 {
			break
		}
		if calls > ended {
			t.Fatalf("%d of %d ended holds are left after %d claims", size, ended, calls)
		}
		if err := n.claims.Unclaim(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	if ttl := rdb.Redis().PTTL(t.Context(), key).Val(); ttl <= dray.MaxClaimTTL || ttl > dray.MaxClaimTTL+time.Minute {
		t.Errorf("the hash goes in %v, want just after the longest claim", ttl)
	}
}

func TestTheSameKeyGetsTheSameAnswer(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, a, b node) {
		a.fleet(t, 4)
		r := request(2)
		r.Key, r.Filter = "order {17} *", dray.Filter{"status": {"free", "busy"}}
		first := a.claim(t, r)
		same := r
		same.Filter = dray.Filter{"status": {"busy", "free", "busy"}}
		if again := b.claim(t, same); again.ID != first.ID || ids(again.Drivers) != ids(first.Drivers) || !again.ExpiresAt.Equal(first.ExpiresAt) {
			t.Errorf("Claim() again = %+v, want %+v", again, first)
		}
		for name, change := range map[string]func(r *dray.ClaimRequest){
			"count":  func(r *dray.ClaimRequest) { r.Count++ },
			"ttl":    func(r *dray.ClaimRequest) { r.TTL -= time.Second },
			"radius": func(r *dray.ClaimRequest) { r.Radius++ },
			"place":  func(r *dray.ClaimRequest) { r.Latitude += 0.0001 },
			"filter": func(r *dray.ClaimRequest) { r.Filter = nil },
		} {
			other := r
			change(&other)
			if c, err := b.claims.Claim(t.Context(), "", other); !errors.Is(err, dray.ErrIdempotencyMismatch) {
				t.Errorf("%s: Claim() of another request = %+v, %v, want ErrIdempotencyMismatch", name, c, err)
			}
		}
		if c, err := b.claims.Claim(t.Context(), "somebody else", r); err != nil || ids(c.Drivers) != "d3 d4" {
			t.Errorf("Claim() of another caller = %s, %v, want d3 and d4", ids(c.Drivers), err)
		}
		if err := a.claims.Unclaim(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		if again := b.claim(t, r); again.ID != first.ID {
			t.Errorf("Claim() after Unclaim() = %+v, want the answer that was told", again)
		}
	})
}

func TestARefusalIsNotKept(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, a, b node) {
		r := request(1)
		r.Key = "k"
		if _, err := a.claims.Claim(t.Context(), "", r); !errors.Is(err, dray.ErrNoneAvailable) {
			t.Fatalf("Claim() of nobody = %v, want ErrNoneAvailable", err)
		}
		a.fleet(t, 1)
		b.shows(t, "d1")
		if c := b.claim(t, r); ids(c.Drivers) != "d1" {
			t.Errorf("Claim() = %s, want d1", ids(c.Drivers))
		}
	})
}

// A claim is of the driver, wherever it goes.
func TestAClaimSurvivesMovesAndOffline(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, a, b node) {
		a.fleet(t, 2)
		a.claim(t, request(1))
		b.shows(t, "d2")
		there := dray.NewPosition("d1", dray.Point{Latitude: 30.5083, Longitude: -97.6789}) // another bucket
		back := dray.NewPosition("d1", here)
		for _, p := range []dray.Position{there, back} {
			if _, err := b.store.Report(t.Context(), []dray.Position{p}); err != nil {
				t.Fatal(err)
			}
			b.shows(t, "d2")
		}
		if err := a.store.Offline(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.store.Report(t.Context(), []dray.Position{back}); err != nil {
			t.Fatal(err)
		}
		c := b.claim(t, request(5))
		if ids(c.Drivers) != "d2" {
			t.Errorf("Claim() = %s, want d2 alone", ids(c.Drivers))
		}
		a.shows(t)
	})
}

// 64 riders on two nodes fight for 40 cars, each asking again while the first answer is on
// its way. Each car goes to one, each rider has one car at most, and all cars are taken.
func TestNoDriverIsClaimedTwice(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, a, b node) {
		const riders, cars = 64, 40
		a.fleet(t, cars)
		nodes := []node{a, b}
		var mu sync.Mutex
		holder := map[string]string{} // driver -> claim
		claims := map[int]string{}    // rider -> claim
		refused := 0
		var all sync.WaitGroup
		for i := range 2 * riders {
			all.Go(func() {
				rider := i / 2
				r := request(1)
				r.Key = fmt.Sprint("rider ", rider)
				c, err := nodes[i%2].claims.Claim(t.Context(), "", r)
				for errors.Is(err, dray.ErrUnavailable) && t.Context().Err() == nil { // no connection was free in time
					c, err = nodes[i%2].claims.Claim(t.Context(), "", r)
				}
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, dray.ErrNoneAvailable) {
					refused++
					return
				}
				if err != nil || len(c.Drivers) != 1 {
					t.Errorf("Claim() = %+v, %v, want one driver", c, err)
					return
				}
				if had := holder[c.Drivers[0].Driver]; had != "" && had != c.ID {
					t.Errorf("%s is held by %s and %s", c.Drivers[0].Driver, had, c.ID)
				}
				if had := claims[rider]; had != "" && had != c.ID {
					t.Errorf("rider %d has claims %s and %s", rider, had, c.ID)
				}
				holder[c.Drivers[0].Driver], claims[rider] = c.ID, c.ID
			})
		}
		all.Wait()
		if len(holder) != cars || len(claims) != cars || refused != 2*(riders-cars) {
			t.Errorf("%d cars are held by %d riders and %d were refused, want %d, %d, %d", len(holder), len(claims), refused, cars, cars, 2*(riders-cars))
		}
		for _, n := range nodes {
			n.shows(t)
		}
	})
}

// The reply to the call that made a claim is lost: asked again with its key, it is the same
// claim; nobody else is held.
func TestARetryAfterALostAnswerClaimsNobodyElse(t *testing.T) {
	server := redistest.Single(t)
	proxy := redistest.NewProxy(t, server)
	config := server.Config()
	config.KeyPrefix = redistest.Prefix(t)
	sure := newNode(t, redistest.Open(t, config))
	sure.fleet(t, 3)
	sure.shows(t, "d1", "d2", "d3")
	through := config
	through.Host, through.Port = proxy.Node().Host, proxy.Node().Port
	lossy := claim.New(claim.Config{Redis: redistest.Open(t, through), Near: sure.hub})
	r := request(1)
	r.Key = "k"
	if _, err := lossy.Claim(t.Context(), "", dray.ClaimRequest{Circle: r.Circle, TTL: time.Second, Filter: dray.Filter{"status": {"none"}}}); !errors.Is(err, dray.ErrNoneAvailable) {
		t.Fatalf("Claim() of nobody = %v, want ErrNoneAvailable", err)
	}
	proxy.Replies(redistest.Cut)
	if c, err := lossy.Claim(t.Context(), "", r); !errors.Is(err, dray.ErrUnavailable) {
		t.Fatalf("Claim() without a reply = %+v, %v, want ErrUnavailable", c, err)
	}
	if proxy.Lost() == 0 {
		t.Fatal("no reply was lost")
	}
	proxy.Replies(redistest.Pass)
	c, err := lossy.Claim(t.Context(), "", r)
	if err != nil || ids(c.Drivers) != "d1" {
		t.Errorf("Claim() again = %+v, %v, want d1", c, err)
	}
	sure.shows(t, "d2", "d3")
}

func TestInvalidRequests(t *testing.T) {
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	n := newNode(t, redistest.Open(t, config))
	for name, x := range map[string]struct {
		change func(r *dray.ClaimRequest)
		want   error
	}{
		"latitude 86":      {func(r *dray.ClaimRequest) { r.Latitude = 86 }, dray.ErrInvalidPosition},
		"no latitude":      {func(r *dray.ClaimRequest) { r.Latitude = math.NaN() }, dray.ErrInvalidPosition},
		"longitude 181":    {func(r *dray.ClaimRequest) { r.Longitude = 181 }, dray.ErrInvalidPosition},
		"radius 0":         {func(r *dray.ClaimRequest) { r.Radius = 0 }, dray.ErrBadRequest},
		"radius NaN":       {func(r *dray.ClaimRequest) { r.Radius = math.NaN() }, dray.ErrBadRequest},
		"radius over":      {func(r *dray.ClaimRequest) { r.Radius = 50_001 }, dray.ErrBadRequest},
		"count -1":         {func(r *dray.ClaimRequest) { r.Count = -1 }, dray.ErrBadRequest},
		"count 101":        {func(r *dray.ClaimRequest) { r.Count = 101 }, dray.ErrBadRequest},
		"no time":          {func(r *dray.ClaimRequest) { r.TTL = 0 }, dray.ErrBadRequest},
		"under a second":   {func(r *dray.ClaimRequest) { r.TTL = time.Second - 1 }, dray.ErrBadRequest},
		"over an hour":     {func(r *dray.ClaimRequest) { r.TTL = time.Hour + time.Second }, dray.ErrBadRequest},
		"key of 256 bytes": {func(r *dray.ClaimRequest) { r.Key = strings.Repeat("k", 256) }, dray.ErrBadRequest},
		"key with NUL":     {func(r *dray.ClaimRequest) { r.Key = "a\x00b" }, dray.ErrBadRequest},
		"filter too large": {func(r *dray.ClaimRequest) { r.Filter = dray.Filter{"k": make([]string, 65)} }, dray.ErrTooLarge},
	} {
		r := request(1)
		x.change(&r)
		if c, err := n.claims.Claim(t.Context(), "", r); !errors.Is(err, x.want) {
			t.Errorf("%s: Claim() = %+v, %v, want %v", name, c, err, x.want)
		}
	}
}
