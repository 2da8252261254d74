package watch_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"

	"dray"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// inBubble runs a test in a bubble, with nodes that it opens.
func inBubble(t *testing.T, test func(t *testing.T, open func() node)) {
	redistest.Bubble(t, func(t *testing.T, config redisconn.Config, _ *miniredis.Miniredis) {
		test(t, func() node {
			n := newNode(t, redistest.Open(t, config), 0)
			time.Sleep(2 * time.Second) // until its feed has proved to deliver
			return n
		})
	})
}

// has tells at once whether w's set is just these drivers.
func (w *watcher) has(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for id := range w.set {
		got = append(got, id)
	}
	if slices.Sort(got); !slices.Equal(got, want) || len(w.faults) > 0 {
		t.Errorf("%s holds %v, %v, want %v", w.name, got, w.faults, want)
	}
}

// finds tells what a nearby question finds, and whether the Store knows a driver as live.
func (n node) finds(t *testing.T, want ...string) {
	t.Helper()
	hits, err := n.hub.Nearby(t.Context(), here, 1000, 10, nil)
	var got []string
	for _, hit := range hits {
		d, e := hit.Driver()
		if got = append(got, d.Driver); e != nil {
			err = e
		}
	}
	if slices.Sort(got); err != nil || !slices.Equal(got, want) {
		t.Errorf("Nearby = %v, %v, want %v", got, err, want)
	}
}

func TestSilentDriversLeaveAtTheTTL(t *testing.T) {
	inBubble(t, func(t *testing.T, open func() node) {
		const ttl = dray.DefaultTTL
		a, b, c := open(), open(), open()
		early := b.watch(t, "early", city, nil, 0)
		defer early.close()
		a.report(t, dray.NewPosition("silent", here), dray.NewPosition("talks", here))
		time.Sleep(ttl / 2)
		late := c.watch(t, "late", city, nil, 0) // learns of them from a read, not from the feed
		defer late.close()
		a.report(t, dray.NewPosition("talks", here))
		early.has(t, "silent", "talks")
		time.Sleep(time.Until(early.set["silent"].ReceivedAt.Add(ttl - time.Millisecond)))
		for _, left := range [][]string{{"silent", "talks"}, {"talks"}} {
			early.has(t, left...)
			late.has(t, left...)
			for _, n := range []node{a, b, c} {
				n.finds(t, left...)
				if d, live, err := n.store.Last(t.Context(), "silent"); err != nil || live != (len(left) == 2) {
					t.Errorf("Last(silent) = %+v, %v, %v, want as in %v", d, live, err, left)
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(ttl/2 + time.Second)
		early.has(t)
		late.has(t)
	})
}

// A driver whose claim ends is shown again at that moment.
func TestHeldDriversAreShownAgainAtTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, open func() node) {
		a, b := open(), open()
		w := b.watch(t, "w", city, nil, 0)
		defer w.close()
		a.report(t, dray.NewPosition("d1", here), dray.NewPosition("d2", here))
		claim, err := a.claims.Claim(t.Context(), "", dray.ClaimRequest{Circle: *city.Nearby, Count: 1, TTL: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		late := open() // learns of it from a read, not from the feed
		time.Sleep(time.Until(claim.ExpiresAt.Add(-time.Millisecond)))
		for _, shown := range [][]string{{"d2"}, {"d1", "d2"}} {
			w.has(t, shown...)
			b.finds(t, shown...)
			late.finds(t, shown...)
			time.Sleep(2 * time.Millisecond)
		}
	})
}

func TestChangesKeepToTheInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, open func() node) {
		a, b := open(), open()
		for interval, want := range map[time.Duration][]time.Duration{
			0:               {0, 1, 2, 3, 4, 5, 6, 7, 8, 20},
			3 * time.Second: {0, 3, 6, 9, 20},
			5 * time.Second: {0, 5, 10, 20}, // after a rest at once
		} {
			began := time.Now()
			var got []time.Duration
			var newest int64
			due, done := make(chan struct{}, 1), make(chan struct{})
			sub, err := b.hub.Subscribe(t.Context(), city, nil, watch.Options{Interval: interval, Due: func() { due <- struct{}{} }})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer close(done)
				var c watch.Change
				for range due {
					if sub.Next(&c) {
						got = append(got, time.Since(began)/time.Second)
						for _, text := range append(c.Entered, c.Moved...) {
							var d dray.Driver
							if err := d.UnmarshalJSON(text); err != nil {
								t.Error(err)
							}
							newest = d.Timestamp.UnixMilli()
						}
					}
				}
			}()
			for range 8 {
				time.Sleep(time.Second)
				a.report(t, dray.NewPosition("d", here))
			}
			time.Sleep(12 * time.Second)
			last := dray.NewPosition("d", here)
			last.Timestamp = time.Now()
			a.report(t, last)
			synctest.Wait()
			if !slices.Equal(got, want) || newest != last.Timestamp.UnixMilli() {
				t.Errorf("interval %v: told after %d s, want %d; the newest is of %d, want %d", interval, got, want, newest, last.Timestamp.UnixMilli())
			}
			sub.Close()
			close(due)
			<-done
		}
	})
}

// Buckets that nobody watches or asks about are given back when they have lingered, and asked for again.
func TestIdleBucketsAreDetached(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, config redisconn.Config, _ *miniredis.Miniredis) {
		rdb, counts := redistest.Open(t, config), prometheus.NewRegistry()
		n := node{store: location.New(location.Config{Redis: rdb})}
		n.hub = watch.New(watch.Config{Redis: rdb, Locations: n.store, Metrics: counts})
		defer func() {
			n.hub.Close()
			_ = n.store.Close(context.Background())
		}()
		holds := func(what string, some bool) {
			t.Helper()
			families, err := counts.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if held := f.GetMetric()[0].GetGauge().GetValue(); f.GetName() == "dray_watch_buckets" && held > 0 != some {
					t.Errorf("%v buckets are held %s", held, what)
				}
			}
		}
		const linger = time.Minute
		const late = linger/8 + time.Second // between two looks
		time.Sleep(2 * time.Second)         // until the feed has proved to deliver
		for range 2 {
			n.report(t, dray.NewPosition("d", here))
			n.finds(t, "d")
			time.Sleep(linger - time.Second)
			holds("a minute after a question", true)
			w := n.watch(t, "w", city, nil, 0)
			time.Sleep(10 * linger)
			holds("while they are watched", true)
			w.close()
			time.Sleep(linger - time.Second)
			holds("a minute after they were watched", true)
			time.Sleep(time.Second + late)
			holds("when they have lingered", false)
		}
	})
}
