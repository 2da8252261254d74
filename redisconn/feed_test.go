package redisconn_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// publish sends the way that scripts do.
func publish(t testing.TB, c *redisconn.Client, channel, payload string) {
	t.Helper()
	got := c.RunAll(within(t, 5*time.Second), []redisconn.Call{redisconn.Command(c.PublishCommand(), channel, payload)})
	if err := got[0].Err(); err != nil {
		t.Fatalf("publish = %v", err)
	}
}

func TestFeedDeliversAllAfterSubscribe(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			c := redistest.Open(t, m.config(t))
			for _, partition := range []int{0, c.Partitions() - 1} {
				var r recorder
				f := c.OpenFeed(partition, &r)
				var want []string
				for i := range 50 {
					ch := fmt.Sprintf("%s{%s}c%d", c.Prefix(), c.Tag(partition), i)
					if err := f.Subscribe(within(t, 5*time.Second), ch); err != nil {
						t.Fatalf("Subscribe() = %v", err)
					}
					publish(t, c, ch, fmt.Sprint("first ", i)) // at once: nothing may be lost
					want = append(want, fmt.Sprint(ch, "=first ", i))
				}
				if got := r.waitMessages(t, len(want)); !slices.Equal(got, want) {
					t.Errorf("messages = %q, want %q", got, want)
				}
				eventually(t, 5*time.Second, "feed is healthy", f.Healthy)
				if f.Lag() <= 0 || f.Lag() > time.Second {
					t.Errorf("Lag() = %v", f.Lag())
				}
				if _, resets := r.got(); resets != 0 {
					t.Errorf("resets = %d, want 0", resets)
				}
				f.Close()
				if f.Healthy() {
					t.Error("a closed feed is healthy")
				}
				if err := f.Subscribe(within(t, time.Second), "x"); !errors.Is(err, dray.ErrUnavailable) {
					t.Errorf("Subscribe() when closed = %v, want ErrUnavailable", err)
				}
			}
		})
	}
}

func TestFeedUnsubscribe(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			c := redistest.Open(t, m.config(t))
			var r recorder
			f := c.OpenFeed(0, &r)
			ctx := within(t, 10*time.Second)
			a, b := c.Prefix()+"{"+c.Tag(0)+"}a", c.Prefix()+"{"+c.Tag(0)+"}b"
			// Off and on again at once: the first confirmation must not stand for the second.
			var want []string
			for i := range 200 {
				if err := f.Subscribe(ctx, a, b, a); err != nil {
					t.Fatalf("Subscribe() = %v", err)
				}
				publish(t, c, a, fmt.Sprint(i))
				want = append(want, fmt.Sprint(a, "=", i))
				r.waitMessages(t, len(want))
				f.Unsubscribe(a, "unknown")
			}
			f.Unsubscribe(a)
			publish(t, c, b, "end")
			if got := r.waitMessages(t, len(want)+1); !slices.Equal(got, append(want, b+"=end")) {
				t.Errorf("messages = %q", got)
			}
			if _, resets := r.got(); resets != 0 {
				t.Errorf("resets = %d, want 0", resets)
			}
		})
	}
}

func TestFeedIsSafeForConcurrentUse(t *testing.T) {
	c := redistest.Open(t, redistest.Single(t).Config())
	f := c.OpenFeed(0, &recorder{})
	ctx := within(t, 10*time.Second)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				ch := fmt.Sprint(c.Prefix(), i, ":", j%5)
				if err := f.Subscribe(ctx, ch); err != nil {
					t.Errorf("Subscribe() = %v", err)
				}
				f.Unsubscribe(ch)
			}
		})
	}
	wg.Wait()
}

func TestFeedTellsOfACutConnection(t *testing.T) {
	for name, start := range map[string]func() (config redisconn.Config, cut func(tag string)){
		"single": func() (redisconn.Config, func(string)) {
			s := redistest.Start(t)
			return s.Config(), func(string) { s.Do(t, "CLIENT", "KILL", "TYPE", "pubsub") }
		},
		"cluster": func() (redisconn.Config, func(string)) {
			s := redistest.StartCluster(t, false)
			return s.Config(), func(tag string) { s.Master(tag).Do(t, "CLIENT", "KILL", "TYPE", "pubsub") }
		},
		"restart": func() (redisconn.Config, func(string)) {
			s := redistest.Start(t)
			return s.Config(), func(string) { s.Restart(t) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, cut := start()
			c := redistest.Open(t, config)
			var r recorder
			f := c.OpenFeed(0, &r)
			ch := c.Prefix() + "{" + c.Tag(0) + "}ch"
			if err := f.Subscribe(within(t, 5*time.Second), ch); err != nil {
				t.Fatal(err)
			}
			for i := 1; i <= 3; i++ {
				cut(c.Tag(0))
				r.waitResets(t, i, 5*time.Second)
				publish(t, c, ch, fmt.Sprint(i))
				if got := r.waitMessages(t, i); got[i-1] != fmt.Sprint(ch, "=", i) {
					t.Errorf("messages = %q", got)
				}
			}
			eventually(t, 5*time.Second, "feed is healthy", f.Healthy)
		})
	}
}

func TestFeedNoticesAFrozenServer(t *testing.T) {
	s := redistest.Start(t)
	c := redistest.Open(t, s.Config())
	var r recorder
	f := c.OpenFeed(0, &r)
	ch := c.Prefix() + "ch"
	if err := f.Subscribe(within(t, 5*time.Second), ch); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Second, "feed is healthy", f.Healthy)
	s.Freeze()
	frozen := time.Now()
	eventually(t, 4*time.Second, "feed is not healthy", func() bool { return !f.Healthy() })
	t.Logf("noticed after %v", time.Since(frozen))
	// Once the connection is given up, why is told.
	eventually(t, 5*time.Second, "Subscribe fails", func() bool {
		err := f.Subscribe(within(t, 100*time.Millisecond), "other")
		return errors.Is(err, dray.ErrUnavailable) && strings.Contains(err.Error(), "i/o timeout")
	})
	s.Thaw()
	thawed := time.Now()
	r.waitResets(t, 1, 5*time.Second)
	t.Logf("back %v after the thaw", time.Since(thawed))
	publish(t, c, ch, "again")
	if got := r.waitMessages(t, 1); got[0] != ch+"=again" {
		t.Errorf("messages = %q", got)
	}
	eventually(t, 3*time.Second, "feed is healthy", f.Healthy)
}

func TestFeedWaitsForTheFirstConnection(t *testing.T) {
	s := redistest.Start(t)
	c := redistest.Open(t, s.Config())
	s.Stop()
	var r recorder
	f := c.OpenFeed(0, &r)
	done := make(chan error, 1)
	ctx := within(t, 10*time.Second)
	go func() { done <- f.Subscribe(ctx, "ch") }()
	if err := f.Subscribe(within(t, 300*time.Millisecond), "never"); !errors.Is(err, dray.ErrUnavailable) {
		t.Errorf("Subscribe() without server = %v, want ErrUnavailable", err)
	}
	s.Restart(t)
	if err := <-done; err != nil {
		t.Errorf("Subscribe() = %v, want nil once the server is there", err)
	}
	if _, resets := r.got(); resets != 0 {
		t.Errorf("resets = %d, want 0: there was nothing to lose", resets)
	}
}
