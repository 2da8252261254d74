package location_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/realtime/location"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// Two places 20 km apart, in two buckets.
var (
	here  = dray.Point{Latitude: 30.2672, Longitude: -97.7431}
	there = dray.Point{Latitude: 30.5083, Longitude: -97.6789}
)

// open makes stores, each with a client of its own, that share a key prefix.
func open(t *testing.T, config redisconn.Config, n int, change func(c *location.Config)) ([]*location.Store, *redisconn.Client) {
	t.Helper()
	config.KeyPrefix = redistest.Prefix(t)
	var stores []*location.Store
	var rdb *redisconn.Client
	for range n {
		rdb = redistest.Open(t, config)
		c := location.Config{Redis: rdb}
		if change != nil {
			change(&c)
		}
		s := location.New(c)
		t.Cleanup(func() {
			if err := s.Close(context.Background()); err != nil {
				t.Errorf("Close() = %v", err)
			}
		})
		stores = append(stores, s)
	}
	return stores, rdb
}

func onEveryRedis(t *testing.T, test func(t *testing.T, config redisconn.Config)) {
	t.Run("embedded", func(t *testing.T) { test(t, redisconn.ForDevelopment()) })
	t.Run("single", func(t *testing.T) { test(t, redistest.Single(t).Config()) })
	t.Run("cluster", func(t *testing.T) { test(t, redistest.Cluster(t).Config()) })
}

func at(driver string, p dray.Point, ms int64) dray.Position {
	pos := dray.NewPosition(driver, p)
	pos.Timestamp = time.UnixMilli(ms)
	return pos
}

func report(t *testing.T, s *location.Store, want location.Outcome, positions ...dray.Position) {
	t.Helper()
	results, err := s.Report(t.Context(), positions)
	if err != nil {
		t.Fatalf("Report(%v) = %v", positions, err)
	}
	for i, r := range results {
		if r.Outcome != want {
			t.Errorf("Report(%+v) = %v, %v, want outcome %v", positions[i], r.Outcome, r.Err, want)
		}
	}
}

func wantLast(t *testing.T, s *location.Store, driver string, want dray.Point) {
	t.Helper()
	d, ok, err := s.Last(t.Context(), driver)
	if err != nil || !ok || d.Point() != want {
		t.Errorf("Last(%s) = %+v, %v, %v, want %v", driver, d, ok, err, want)
	}
}

func wantGone(t *testing.T, s *location.Store, driver string) {
	t.Helper()
	if d, ok, err := s.Last(t.Context(), driver); ok || err != nil {
		t.Errorf("Last(%s) = %+v, %v, %v, want not live", driver, d, ok, err)
	}
}

func TestNewestTimestampWins(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, config redisconn.Config) {
		n := 2
		if config.Mode() == redisconn.Embedded {
			n = 1 // each client would have a Redis of its own
		}
		stores, _ := open(t, config, n, nil)
		a, b := stores[0], stores[len(stores)-1]
		now := time.Now().UnixMilli()

		report(t, a, location.Stored, at("d", here, now))
		wantLast(t, b, "d", here)
		report(t, b, location.Superseded, at("d", there, now))    // equal, in another bucket
		report(t, b, location.Superseded, at("d", there, now-10)) // late, in another bucket
		report(t, b, location.Superseded, at("d", here, now-10))  // late, in the same
		wantLast(t, a, "d", here)

		report(t, b, location.Stored, at("d", there, now+10))
		report(t, a, location.Superseded, at("d", here, now+5)) // late, in the bucket it left
		wantLast(t, a, "d", there)
		report(t, a, location.Stored, at("d", here, now+20)) // and back
		report(t, b, location.Stored, at("d", there, now+30))
		report(t, a, location.Superseded, at("d", here, now+29))
		wantLast(t, a, "d", there)

		if err := a.Offline(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		wantGone(t, b, "d")
		report(t, b, location.Superseded, at("d", there, now+30)) // keeps the last timestamp
		report(t, b, location.Superseded, at("d", here, now+25))
		wantGone(t, b, "d")
		report(t, b, location.Stored, at("d", here, now+31))
		wantLast(t, a, "d", here)

		report(t, a, location.Stored, at("d", here, now+40)) // it stays: the directory knows of now+31
		report(t, b, location.Superseded, at("d", there, now+40))
		wantLast(t, a, "d", here)
		report(t, b, location.Stored, at("d", there, now+41))
		wantLast(t, a, "d", there)

		// too old to make anybody live, which is no error
		report(t, a, location.Stored, at("old", here, now-dray.DefaultTTL.Milliseconds()-1000))
		wantGone(t, a, "old")
		if err := a.Offline(t.Context(), "never heard of"); !errors.Is(err, dray.ErrBadRequest) {
			t.Errorf("Offline of a bad id = %v, want ErrBadRequest", err)
		}
		if err := a.Offline(t.Context(), "unknown"); err != nil {
			t.Errorf("Offline(unknown) = %v, want nil", err)
		}
	})
}

func TestOneBatchCountsEachPositionByItself(t *testing.T) {
	stores, _ := open(t, redistest.Single(t).Config(), 1, nil)
	now := time.Now().UnixMilli()
	late := at("d", here, now-1)
	invalid := at("d", dray.Point{Latitude: 91}, now)
	future := at("e", here, now+70_000)
	badID := at("e f", here, now)
	results, err := stores[0].Report(t.Context(), []dray.Position{late, at("d", there, now), invalid, at("d", here, now), future, badID, at("g", here, now)})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		outcome location.Outcome
		err     error
	}{
		{location.Superseded, nil}, {location.Stored, nil}, {location.Refused, dray.ErrInvalidPosition}, {location.Superseded, nil},
		{location.Refused, dray.ErrInvalidPosition}, {location.Refused, dray.ErrBadRequest}, {location.Stored, nil},
	}
	for i, r := range results {
		if r.Outcome != want[i].outcome || !errors.Is(r.Err, want[i].err) {
			t.Errorf("position %d: %v, %v, want %v, %v", i, r.Outcome, r.Err, want[i].outcome, want[i].err)
		}
	}
	wantLast(t, stores[0], "d", there)
}

// Many goroutines on two nodes report the same drivers; the newest timestamp stands, each
// position is told of once, and the driver is in exactly one bucket.
func TestConcurrentReportsLeaveNoGhost(t *testing.T) {
	for mode, config := range map[string]redisconn.Config{"single": redistest.Single(t).Config(), "cluster": redistest.Cluster(t).Config()} {
		t.Run(mode, func(t *testing.T) {
			stores, rdb := open(t, config, 2, nil)
			base := time.Now().UnixMilli() - 20_000
			const drivers, writers, each = 8, 6, 60
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(w), 7))
					for i := range each {
						var batch []dray.Position
						for d := range drivers {
							if rnd.IntN(2) == 0 {
								p := here
								if rnd.IntN(2) == 0 {
									p = there
								}
								batch = append(batch, at(fmt.Sprint("d", d), p, base+int64(i*writers+w)))
							}
						}
						for _, d := range drivers2(drivers) { // the last word is here, on one node
							if i == each-1 && w == writers-1 {
								batch = append(batch, at(d, here, base+10_000))
							}
						}
						if _, err := stores[w%2].Report(context.Background(), batch); err != nil {
							t.Errorf("Report = %v", err)
						}
					}
				})
			}
			all.Wait()
			for _, d := range drivers2(drivers) {
				wantLast(t, stores[0], d, here)
				live := 0
				for _, p := range []dray.Point{here, there} {
					record, _ := rdb.Redis().HGet(t.Context(), stores[0].RecordsKey(location.BucketAt(p)), d).Result()
					if strings.HasPrefix(record, `{"receivedAt"`) {
						live++
					}
				}
				if live != 1 {
					t.Errorf("%s is live in %d buckets, want 1", d, live)
				}
			}
		})
	}
}

func drivers2(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint("d", i))
	}
	return ids
}

func TestEveryKeyExpires(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, config redisconn.Config) {
		stores, rdb := open(t, config, 1, func(c *location.Config) { c.TrailLength = 10 })
		now := time.Now().UnixMilli()
		report(t, stores[0], location.Stored, at("d", here, now))
		report(t, stores[0], location.Stored, at("d", there, now+1))
		for _, key := range keysOf(t, rdb) {
			if ttl, err := rdb.Redis().PTTL(t.Context(), key).Result(); err != nil || ttl <= 0 {
				t.Errorf("PTTL(%s) = %v, %v, want a time", key, ttl, err)
			}
		}
	})
}

func keysOf(t *testing.T, rdb *redisconn.Client) []string {
	t.Helper()
	var keys []string
	for _, p := range []dray.Point{here, there} {
		s := location.New(location.Config{Redis: rdb})
		keys = append(keys, s.RecordsKey(location.BucketAt(p)), s.DirectoryKey(s.DirectoryPartition("d")))
		if p == there {
			keys = append(keys, s.GeoKey(location.BucketAt(p)))
		}
		_ = s.Close(t.Context())
	}
	return keys
}

// Members past their time are taken out as others come, and GEOSEARCH by any program finds
// who is there.
func TestStaleMembersArePruned(t *testing.T) {
	stores, rdb := open(t, redistest.Single(t).Config(), 1, func(c *location.Config) { c.TTL = 300 * time.Millisecond })
	s := stores[0]
	var crowd []dray.Position
	for i := range 200 {
		crowd = append(crowd, dray.NewPosition(fmt.Sprint("d", i), here))
	}
	report(t, s, location.Stored, crowd...)
	geo, records := s.GeoKey(location.BucketAt(here)), s.RecordsKey(location.BucketAt(here))
	if n := rdb.Redis().ZCard(t.Context(), geo).Val(); n != 200 {
		t.Fatalf("ZCARD = %d, want 200", n)
	}
	deadline := time.Now().Add(20 * time.Second)
	for i := 0; ; i++ {
		report(t, s, location.Stored, dray.NewPosition(fmt.Sprint("new", i%3), here))
		n, m := rdb.Redis().ZCard(t.Context(), geo).Val(), rdb.Redis().HLen(t.Context(), records).Val()
		if n <= 3 && m <= 4 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d members and %d records are left, want 3 and 4", n, m)
		}
	}
	if n := rdb.Redis().HLen(t.Context(), s.DirectoryKey(0)).Val(); n > 210 {
		t.Errorf("directory holds %d", n)
	}
}

// A call must carry many positions in few commands: counted by the server.
func TestCommandsOfABatch(t *testing.T) {
	server := redistest.Start(t)
	stores, rdb := open(t, server.Config(), 1, nil)
	var batch []dray.Position
	for i := range 256 {
		p := here
		if i%2 == 0 {
			p = there
		}
		batch = append(batch, dray.NewPosition(fmt.Sprint("d", i), p))
	}
	report(t, stores[0], location.Stored, batch...) // makes everybody live
	if err := rdb.Redis().ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for i := range batch {
		batch[i].Timestamp = time.Now().Add(time.Millisecond)
	}
	report(t, stores[0], location.Stored, batch...)
	stats := rdb.Redis().Info(t.Context(), "commandstats").Val()
	for command, want := range map[string]int{"evalsha": 1, "time": 1, "hmget": 2, "zadd": 2, "hset": 2, "hincrby": 0, "publish": 3} {
		var got int
		if _, after, ok := strings.Cut(stats, "cmdstat_"+command+":calls="); ok {
			fmt.Sscan(after, &got)
		}
		if got > want { // the feed's probe is a publish of its own, and no hub runs here
			t.Errorf("256 positions in two buckets took %d %s, want %d", got, command, want)
		}
	}
}

func TestTrail(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, config redisconn.Config) {
		stores, _ := open(t, config, 1, func(c *location.Config) { c.TrailLength, c.TrailAge = 5, 10*time.Minute })
		s, now := stores[0], time.Now().UnixMilli()
		report(t, s, location.Stored, at("d", here, now))
		report(t, s, location.Superseded, at("d", there, now-1000))
		report(t, s, location.Stored, at("d", there, now-120_000)) // past the TTL: for the trail only
		report(t, s, location.Superseded, at("d", here, now))      // again
		report(t, s, location.Stored, at("d", there, now-11*60_000))
		trail, err := s.Trail(t.Context(), "d", time.Time{}, time.Time{}, 100)
		if err != nil || len(trail) != 3 {
			t.Fatalf("Trail = %v, %v, want 3", trail, err)
		}
		for i, want := range []int64{now - 120_000, now - 1000, now} {
			if trail[i].Timestamp.UnixMilli() != want {
				t.Errorf("trail[%d] is of %d, want %d", i, trail[i].Timestamp.UnixMilli(), want)
			}
		}
		for i := range 10 {
			report(t, s, location.Stored, at("d", here, now+1+int64(i)))
		}
		if trail, err = s.Trail(t.Context(), "d", time.Time{}, time.Time{}, 100); err != nil || len(trail) != 5 {
			t.Errorf("Trail = %v, %v, want the last 5", trail, err)
		}
		if trail, err = s.Trail(t.Context(), "d", time.UnixMilli(now+6), time.UnixMilli(now+9), 2); err != nil || len(trail) != 2 || trail[1].Timestamp.UnixMilli() != now+9 {
			t.Errorf("Trail(from, to, 2) = %v, %v, want the newest 2", trail, err)
		}
	})
	stores, _ := open(t, redistest.Single(t).Config(), 1, nil)
	if _, err := stores[0].Trail(t.Context(), "d", time.Time{}, time.Time{}, 1); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Trail where trails are off = %v, want ErrNotFound", err)
	}
}

type count struct {
	mu       sync.Mutex
	outcomes map[location.Outcome]int
}

func (c *count) Reported(_ uint64, o location.Outcome, _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcomes[o]++
}

func TestCloseStoresWhatWasTaken(t *testing.T) {
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb := redistest.Open(t, config)
	s := location.New(location.Config{Redis: rdb})
	c := &count{outcomes: map[location.Outcome]int{}}
	for i := range 3000 {
		if err := s.Submit(t.Context(), []dray.Position{dray.NewPosition(fmt.Sprint("d", i), here)}, c, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.outcomes[location.Stored] != 3000 {
		t.Errorf("after Close: %v, want 3000 stored", c.outcomes)
	}
	if err := s.Submit(t.Context(), make([]dray.Position, 1), c, 0); !errors.Is(err, dray.ErrUnavailable) {
		t.Errorf("Submit after Close = %v, want ErrUnavailable", err)
	}
}

// A Redis that does not answer fills the node's bound; then Submit waits, and every position
// taken is told of.
func TestSubmitWaitsAtTheBound(t *testing.T) {
	server := redistest.Start(t)
	stores, _ := open(t, server.Config(), 1, func(c *location.Config) { c.MaxPending = 2000 })
	s := stores[0]
	report(t, s, location.Stored, dray.NewPosition("d", here))
	server.Freeze()
	c := &count{outcomes: map[location.Outcome]int{}}
	taken := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		batch := make([]dray.Position, 1000)
		for i := range batch {
			batch[i] = dray.NewPosition(fmt.Sprint("d", taken+i), here)
		}
		err := s.Submit(ctx, batch, c, 0)
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Submit at the bound = %v, want the context's error", err)
			}
			break
		}
		if taken += len(batch); taken > 2000 {
			t.Fatalf("took %d, want no more than the bound of 2000", taken)
		}
	}
	server.Thaw()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := c.outcomes[location.Stored] + c.outcomes[location.Refused]; n != taken {
		t.Errorf("told of %v, want all of %d", c.outcomes, taken)
	}
}

// What is not ours under our keys does no more harm than it must.
func TestForeignValuesInRedis(t *testing.T) {
	stores, rdb := open(t, redistest.Single(t).Config(), 1, nil)
	s := stores[0]
	report(t, s, location.Stored, dray.NewPosition("d", here))
	key := s.RecordsKey(location.BucketAt(here))
	rdb.Redis().HSet(t.Context(), key, "d", "not a record of ours")
	wantGone(t, s, "d")
	rdb.Redis().Del(t.Context(), key)
	rdb.Redis().Set(t.Context(), key, "not even a hash", time.Minute)
	results, err := s.Report(t.Context(), []dray.Position{dray.NewPosition("d", here)})
	if err != nil || !errors.Is(results[0].Err, dray.ErrUnavailable) {
		t.Errorf("Report over a WRONGTYPE = %v, %v, want ErrUnavailable", results, err)
	}
	report(t, s, location.Stored, dray.NewPosition("e", there)) // others are unharmed

	// the other key of the bucket, in one batch with a bucket that is well
	rdb.Redis().Del(t.Context(), key)
	rdb.Redis().Set(t.Context(), s.GeoKey(location.BucketAt(here)), "not a zset", time.Minute)
	results, err = s.Report(t.Context(), []dray.Position{dray.NewPosition("f", there), dray.NewPosition("e", here), dray.NewPosition("g", there)})
	if err != nil || results[0].Err != nil || !errors.Is(results[1].Err, dray.ErrUnavailable) || results[2].Err != nil {
		t.Errorf("Report = %v, %v, want only the second to be ErrUnavailable", results, err)
	}
	wantLast(t, s, "e", there) // a refusal writes nothing
}
