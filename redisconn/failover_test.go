package redisconn_test

import (
	"context"
	"fmt"
	"regexp"
	"testing"
	"time"

	"dray/redisconn"
	"dray/redisconn/redistest"
)

// recovery polls until a script that writes to key runs again and returns how long that took.
func recovery(t testing.TB, c *redisconn.Client, key string, limit time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	eventually(t, limit, "commands work again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		return c.Run(ctx, count, []string{key}).Err() == nil
	})
	return time.Since(start)
}

func TestClusterMasterIsFoundAgain(t *testing.T) {
	for name, end := range map[string]func(*redistest.Server){
		"killed": func(s *redistest.Server) { s.Stop() },
		"frozen": func(s *redistest.Server) { s.Freeze() },
	} {
		t.Run(name, func(t *testing.T) {
			servers := redistest.StartCluster(t, false)
			c := redistest.Open(t, servers.Config())
			tag := c.Tag(0)
			key, ch := c.Prefix()+"{"+tag+"}n", c.Prefix()+"{"+tag+"}ch"
			var r recorder
			f := c.OpenFeed(0, &r)
			if err := f.Subscribe(within(t, 5*time.Second), ch); err != nil {
				t.Fatal(err)
			}
			if err := c.Run(within(t, time.Second), count, []string{key}).Err(); err != nil {
				t.Fatal(err)
			}

			master := servers.Master(tag)
			end(master)
			t.Logf("found after %v", recovery(t, c, key, 6*time.Second))
			r.waitResets(t, 1, 6*time.Second)
			publish(t, c, ch, "again")
			r.waitMessages(t, 1)
			eventually(t, 3*time.Second, "feed is healthy", f.Healthy)

			master.Thaw()
		})
	}
}

func TestFeedFollowsAMovedSlot(t *testing.T) {
	servers := redistest.StartCluster(t, false)
	c := redistest.Open(t, servers.Config())
	tag := c.Tag(0)
	slot := redisconn.Slot(tag)
	ch := c.Prefix() + "{" + tag + "}ch"
	var r recorder
	f := c.OpenFeed(0, &r)
	if err := f.Subscribe(within(t, 5*time.Second), ch); err != nil {
		t.Fatal(err)
	}
	id := servers.Servers[1].Do(t, "CLUSTER", "MYID")
	for _, s := range []*redistest.Server{servers.Servers[1], servers.Servers[0], servers.Servers[2]} {
		s.Do(t, "CLUSTER", "SETSLOT", slot, "NODE", id)
	}
	r.waitResets(t, 1, 6*time.Second)
	publish(t, c, ch, "again")
	r.waitMessages(t, 1)
}

var twice = regexp.MustCompile(`errorstat_TRYAGAIN:count=([2-9]|\d\d)`)

func TestScriptWaitsForAMovingSlot(t *testing.T) {
	servers := redistest.StartCluster(t, false)
	c := redistest.Open(t, servers.Config())
	tag := c.Tag(0)
	slot := redisconn.Slot(tag)
	from, to := servers.Servers[0], servers.Servers[1]
	two := redisconn.NewScript("two", "return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])")
	keys := []string{c.Prefix() + "{" + tag + "}a", c.Prefix() + "{" + tag + "}b"}
	ctx := within(t, 10*time.Second)
	if n, err := c.Run(ctx, two, keys).Int(); n != 2 || err != nil {
		t.Fatalf("Run() = %d, %v, want 2", n, err)
	}
	to.Do(t, "CLUSTER", "SETSLOT", slot, "IMPORTING", from.Do(t, "CLUSTER", "MYID"))
	from.Do(t, "CLUSTER", "SETSLOT", slot, "MIGRATING", to.Do(t, "CLUSTER", "MYID"))
	from.Do(t, "MIGRATE", "127.0.0.1", to.Port(), keys[0], 0, 1000)

	// One key is here and one is there: TRYAGAIN, until the other has moved as well.
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, two, keys).Err() }()
	eventually(t, 5*time.Second, "Run tries again", func() bool {
		return len(done) > 0 || twice.MatchString(fmt.Sprint(from.Do(t, "INFO", "errorstats")))
	})
	if len(done) > 0 {
		t.Fatalf("Run() = %v before the second key has moved", <-done)
	}
	from.Do(t, "MIGRATE", "127.0.0.1", to.Port(), keys[1], 0, 1000)
	if err := <-done; err != nil {
		t.Errorf("Run() while one key is moving = %v", err)
	}
	// All keys are there, the slot is not yet: ASK.
	if n, err := c.Run(ctx, two, keys).Int(); n != 6 || err != nil {
		t.Errorf("Run() when asked over = %d, %v, want 6", n, err)
	}
	got := c.RunAll(ctx, []redisconn.Call{two.Call(keys), redisconn.Command("GET", keys[0])})
	if n, err := got[0].Int(); n != 8 || err != nil || got[1].Val() != "4" {
		t.Errorf("RunAll() when asked over = %v, want 8 and 4", got)
	}
	if cmd, acked := c.RunWait(ctx, two, 0, time.Millisecond, keys); cmd.Val() != int64(10) || acked != 0 {
		t.Errorf("RunWait() when asked over = %v, %d, want 10, 0", cmd, acked)
	}
	id := to.Do(t, "CLUSTER", "MYID")
	for _, s := range []*redistest.Server{to, from} {
		s.Do(t, "CLUSTER", "SETSLOT", slot, "NODE", id)
	}
	if cmd, _ := c.RunWait(ctx, two, 0, time.Millisecond, keys); cmd.Val() != int64(12) {
		t.Errorf("RunWait() after the move = %v, want 12", cmd)
	}
}

func TestSentinelFailover(t *testing.T) {
	for name, end := range map[string]func(*redistest.Server){
		"killed": func(s *redistest.Server) { s.Stop() },
		"frozen": func(s *redistest.Server) { s.Freeze() },
	} {
		t.Run(name, func(t *testing.T) {
			servers := redistest.Sentinel(t)
			c := redistest.Open(t, servers.Config())
			if c.Mode() != redisconn.Sentinel {
				t.Fatalf("Mode() = %v", c.Mode())
			}
			key, ch := c.Prefix()+"n", c.Prefix()+"ch"
			var r recorder
			f := c.OpenFeed(0, &r)
			if err := f.Subscribe(within(t, 5*time.Second), ch); err != nil {
				t.Fatal(err)
			}
			if _, acked := c.RunWait(within(t, 5*time.Second), count, 1, time.Second, []string{key}); acked != 1 {
				t.Errorf("acked = %d, want 1", acked)
			}
			end(servers.Master)
			t.Logf("found after %v", recovery(t, c, key, 15*time.Second))
			if n, err := c.Redis().Get(within(t, time.Second), key).Int(); n < 2 || err != nil {
				t.Errorf("count = %d, %v, want at least 2", n, err)
			}
			r.waitResets(t, 1, 6*time.Second)
			publish(t, c, ch, "again")
			if got := r.waitMessages(t, 1); got[0] != fmt.Sprint(ch, "=again") {
				t.Errorf("messages = %q", got)
			}
			servers.Master.Thaw()
		})
	}
}
