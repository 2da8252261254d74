package location_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/realtime/location"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// A tap stands between a client and Redis. before sees what is about to be sent, as text; its
// error is the answer then.
type tap func(sent string) error

func (before tap) DialHook(next redis.DialHook) redis.DialHook { return next }

func (before tap) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := before(text(cmd)); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (before tap) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := before(text(cmds...)); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		return next(ctx, cmds)
	}
}

func text(cmds ...redis.Cmder) string {
	var b strings.Builder
	for _, cmd := range cmds {
		for _, arg := range cmd.Args() {
			if p, ok := arg.(*string); ok {
				arg = *p
			}
			fmt.Fprint(&b, arg, " ")
		}
	}
	return b.String()
}

var errCut = errors.New("i/o timeout")

func isLive(t *testing.T, s *location.Store, rdb *redisconn.Client, driver string, p dray.Point) bool {
	t.Helper()
	record, _ := rdb.Redis().HGet(t.Context(), s.RecordsKey(location.BucketAt(p)), driver).Result()
	return strings.HasPrefix(record, `{"receivedAt"`)
}

// A phone that was offline sends what it kept: both positions are entries, and cross at once.
func TestOneBatchBringsADriverBackInTwoBuckets(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, config redisconn.Config) {
		stores, rdb := open(t, config, 1, nil)
		s, now := stores[0], time.Now().UnixMilli()
		var first, batch []dray.Position
		ids := drivers2(50)
		for _, id := range ids {
			first = append(first, at(id, here, now))
			batch = append(batch, at(id, here, now+1), at(id, there, now+2))
		}
		report(t, s, location.Stored, first...)
		for _, id := range ids {
			if err := s.Offline(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Report(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			wantLast(t, s, id, there)
			if isLive(t, s, rdb, id, here) {
				t.Errorf("%s is live where it was before", id)
			}
		}
	})
}

// The directory was written and then the driver did not leave its old bucket: the next
// position makes it leave, in the new bucket as in a third.
func TestCrossingCutAfterTheClaimIsHealed(t *testing.T) {
	beyond := dray.Point{Latitude: 30.75, Longitude: -97.60}
	for name, next := range map[string]dray.Point{"in the new bucket": there, "in a third": beyond} {
		t.Run(name, func(t *testing.T) {
			stores, rdb := open(t, redistest.Cluster(t).Config(), 1, nil)
			s, now := stores[0], time.Now().UnixMilli()
			report(t, s, location.Stored, at("d", here, now))
			var once sync.Once
			rdb.Redis().AddHook(tap(func(sent string) (err error) {
				if strings.Contains(sent, `"to":`) {
					once.Do(func() { err = errCut })
				}
				return err
			}))
			report(t, s, location.Refused, at("d", there, now+1))
			report(t, s, location.Stored, at("d", next, now+2))
			for _, p := range []dray.Point{here, there, beyond} {
				if got, want := isLive(t, s, rdb, "d", p), p == next; got != want {
					t.Errorf("live at %v: %v, want %v", p, got, want)
				}
			}
			entry := rdb.Redis().HGet(t.Context(), s.DirectoryKey(s.DirectoryPartition("d")), "d").Val()
			if want := fmt.Sprint(location.BucketAt(next), " ", now+2); entry != want {
				t.Errorf("the directory holds %q, want %q: all is left", entry, want)
			}
		})
	}
}

// A driver whose crossing was cut is taken offline wherever it seems to be.
func TestOfflineAfterACutCrossing(t *testing.T) {
	stores, rdb := open(t, redistest.Cluster(t).Config(), 1, nil)
	s, now := stores[0], time.Now().UnixMilli()
	report(t, s, location.Stored, at("d", here, now))
	var once sync.Once
	rdb.Redis().AddHook(tap(func(sent string) (err error) {
		if strings.Contains(sent, `"to":`) {
			once.Do(func() { err = errCut })
		}
		return err
	}))
	report(t, s, location.Refused, at("d", there, now+1))
	if err := s.Offline(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	if isLive(t, s, rdb, "d", here) || isLive(t, s, rdb, "d", there) {
		t.Error("live after Offline")
	}
}

func TestFailedHousekeepingRefusesNobody(t *testing.T) {
	stores, rdb := open(t, redistest.Cluster(t).Config(), 1, nil)
	now := time.Now().UnixMilli()
	rdb.Redis().AddHook(tap(func(sent string) error {
		if strings.Contains(strings.ToLower(sent), "hexists") {
			return errCut
		}
		return nil
	}))
	for i := range 200 {
		report(t, stores[0], location.Stored, at(fmt.Sprint("d", i), here, now))
	}
}

func TestCrossingsOfABatchTravelTogether(t *testing.T) {
	stores, rdb := open(t, redistest.Cluster(t).Config(), 1, nil)
	now := time.Now().UnixMilli()
	var trips atomic.Int64
	rdb.Redis().AddHook(tap(func(string) error { trips.Add(1); return nil }))
	for i, p := range []dray.Point{here, there} {
		var batch []dray.Position
		for j := range 1000 {
			batch = append(batch, at(fmt.Sprint("d", j), p, now+int64(i)))
		}
		report(t, stores[0], location.Stored, batch...)
	}
	if n := trips.Load(); n > 40 {
		t.Errorf("two times 1000 entries took %d trips, want 40 at most", n)
	}
}

func TestOfflineComesAfterWhatWasSubmittedBefore(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, config redisconn.Config) {
		stores, _ := open(t, config, 1, nil)
		s := stores[0]
		c := &count{outcomes: map[location.Outcome]int{}}
		for _, id := range drivers2(50) {
			if err := s.Submit(t.Context(), []dray.Position{dray.NewPosition(id, here)}, c, 0); err != nil {
				t.Fatal(err)
			}
			if err := s.Offline(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			wantGone(t, s, id)
		}
	})
}

// Later calls that overtake a slow one do not make Offline think that it has ended.
func TestOfflineWaitsForASlowCall(t *testing.T) {
	stores, rdb := open(t, redistest.Single(t).Config(), 1, nil)
	s := stores[0]
	c := &count{outcomes: map[location.Outcome]int{}}
	under, goOn := make(chan struct{}), make(chan struct{})
	rdb.Redis().AddHook(tap(func(sent string) error {
		if strings.Contains(sent, "slow ") && strings.Contains(sent, "latitude") {
			close(under)
			<-goOn
		}
		return nil
	}))
	if err := s.Submit(t.Context(), []dray.Position{dray.NewPosition("slow", here)}, c, 0); err != nil {
		t.Fatal(err)
	}
	<-under
	offline := make(chan error)
	go func() { offline <- s.Offline(context.WithoutCancel(t.Context()), "slow") }()
	for i := range 5 {
		var others []dray.Position
		for j := range 100 {
			others = append(others, dray.NewPosition(fmt.Sprint("d", i, ".", j), here))
		}
		report(t, s, location.Stored, others...)
	}
	select {
	case err := <-offline:
		t.Errorf("Offline = %v before the position that it follows was stored", err)
		close(goOn)
	default:
		close(goOn)
		if err := <-offline; err != nil {
			t.Errorf("Offline = %v", err)
		}
	}
	wantGone(t, s, "slow")
}

// Positions that Submit took have been told of when Close returns.
func TestCloseAgainstSubmit(t *testing.T) {
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb := redistest.Open(t, config)
	slow := func() time.Time { // so that Close comes while positions are being taken
		time.Sleep(time.Duration(2000+rand.IntN(4000)) * time.Microsecond)
		return time.Now()
	}
	for range 20 {
		s := location.New(location.Config{Redis: rdb, Now: slow})
		var all sync.WaitGroup
		var taken, told atomic.Int64
		for g := range 32 {
			all.Go(func() {
				for i := 0; ; i++ {
					batch := make([]dray.Position, 100)
					for j := range batch {
						batch[j] = dray.NewPosition(fmt.Sprint("d", g, ".", i, ".", j), here)
					}
					if s.Submit(context.Background(), batch, tally{&told}, 0) != nil {
						return
					}
					taken.Add(100)
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(6000)) * time.Microsecond)
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		n := told.Load()
		all.Wait()
		if n != taken.Load() || n != told.Load() {
			t.Fatalf("told of %d when Close returned, %d in the end, want the %d taken", n, told.Load(), taken.Load())
		}
	}
}

type tally struct{ n *atomic.Int64 }

func (c tally) Reported(uint64, location.Outcome, error) { c.n.Add(1) }

// A Close that gives up on a frozen Redis fails what is queued behind the calls in flight.
func TestCloseGivesUpInTime(t *testing.T) {
	server := redistest.Start(t)
	rdb := redistest.Open(t, server.Config())
	s := location.New(location.Config{Redis: rdb})
	report(t, s, location.Stored, dray.NewPosition("d", here))
	server.Freeze()
	defer server.Thaw()
	var told atomic.Int64
	const batches = 40
	for i := range batches {
		batch := make([]dray.Position, 1000)
		for j := range batch {
			batch[j] = dray.NewPosition(fmt.Sprint("d", i, ".", j), here)
		}
		if err := s.Submit(t.Context(), batch, tally{&told}, 0); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close = %v, want the context's error", err)
	}
	for deadline := time.Now().Add(3 * time.Second); told.Load() < batches*1000; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("told of %d, want all %d", told.Load(), batches*1000)
		}
	}
}

// A trail that cannot be kept harms no position.
func TestFailedTrailRefusesNobody(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, config redisconn.Config) {
		stores, rdb := open(t, config, 1, func(c *location.Config) { c.TrailLength = 10 })
		s, now := stores[0], time.Now().UnixMilli()
		rdb.Redis().AddHook(tap(func(sent string) error {
			if strings.Contains(sent, ":trail:") {
				return errCut
			}
			return nil
		}))
		report(t, s, location.Stored, at("d", here, now))
		report(t, s, location.Stored, at("d", there, now+1))
		wantLast(t, s, "d", there)
		if isLive(t, s, rdb, "d", here) {
			t.Error("live where it was before")
		}
	})
}

// Positions of one driver pile up while Redis is frozen: its trail takes what it can hold, in
// calls of a bounded size, and each position is told of.
func TestTrailTakesNoMoreThanItHolds(t *testing.T) {
	stores, rdb := open(t, redistest.Single(t).Config(), 1, func(c *location.Config) { c.TrailLength = 100 })
	s, now := stores[0], time.Now().Add(-50*time.Second).UnixMilli()
	goOn := make(chan struct{})
	var added atomic.Int64
	rdb.Redis().AddHook(tap(func(sent string) error {
		if !strings.Contains(sent, ":trail:") {
			<-goOn
		}
		for _, call := range strings.Split(sent, "evalsha ")[1:] {
			n := int64(strings.Count(call, ":trail:"))
			added.Add(n)
			if n > 500 {
				t.Errorf("one call adds %d positions to trails, want 500 at most", n)
			}
		}
		return nil
	}))
	var told atomic.Int64
	for i := range 20 {
		var batch []dray.Position
		for j := range 1000 {
			batch = append(batch, at(fmt.Sprint("d", j%10), here, now+int64(i*1000+j)))
		}
		if err := s.Submit(t.Context(), batch, tally{&told}, 0); err != nil {
			t.Fatal(err)
		}
	}
	close(goOn)
	trail, err := s.Trail(t.Context(), "d9", time.Time{}, time.Time{}, 1000)
	if err != nil || len(trail) != 100 || trail[99].Timestamp.UnixMilli() != now+19_999 {
		t.Errorf("Trail = %d positions, %v, want the newest 100", len(trail), err)
	}
	if n := told.Load(); n != 20_000 {
		t.Errorf("told of %d, want 20000", n)
	}
	if added.Load() > 3*10*100 { // three calls at most
		t.Errorf("%d positions went to trails, want 3000 at most", added.Load())
	}
}
