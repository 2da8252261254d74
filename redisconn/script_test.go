package redisconn_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/redisconn"
	"dray/redisconn/redistest"

	"github.com/redis/go-redis/v9"
)

var count = redisconn.NewScript("count", "return redis.call('INCR', KEYS[1])")

// slow counts and then keeps Redis busy for ARGV[1] milliseconds.
var slow = redisconn.NewScript("slow", `
local n = redis.call('INCR', KEYS[1])
local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end
local start = now()
while now() - start < tonumber(ARGV[1]) do end
return n`)

func TestScriptRunsInEachMode(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			c := redistest.Open(t, m.config(t))
			ctx := within(t, 5*time.Second)
			key := c.Prefix() + "{" + c.Tag(c.Partitions()-1) + "}n"
			for want := range int64(3) {
				if n, err := c.Run(ctx, count, []string{key}).Int64(); n != want+1 || err != nil {
					t.Errorf("Run() = %d, %v, want %d, nil", n, err, want+1)
				}
			}
			if n, acked := c.RunWait(ctx, count, 0, time.Millisecond, []string{key}); n.Val() != int64(4) || acked < 0 {
				t.Errorf("RunWait() = %v, %d, want 4", n, acked)
			}
			nothing := redisconn.NewScript("nothing", "return nil")
			if err := c.Run(ctx, nothing, nil).Err(); !errors.Is(err, redis.Nil) {
				t.Errorf("Run(nothing) = %v, want redis.Nil", err)
			}
			faulty := redisconn.NewScript("faulty", "return redis.error_reply('MINE because')")
			if err := c.Run(ctx, faulty, nil).Err(); dray.CodeOf(err) != dray.CodeInternal || !strings.Contains(err.Error(), "script faulty") {
				t.Errorf("Run(faulty) = %v, want an internal error that names the script", err)
			}
		})
	}
}

func TestRunWaitTellsHowManyReplicasHaveIt(t *testing.T) {
	c := redistest.Open(t, redistest.Cluster(t).Config())
	cmd, acked := c.RunWait(within(t, 5*time.Second), count, 1, time.Second, []string{c.Prefix() + "{p0}w"})
	if cmd.Err() != nil || acked != 1 {
		t.Errorf("RunWait() = %v, %d, want 1 replica", cmd, acked)
	}
}

func TestRunAllKeepsOrderAndFailsEachByItself(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			c := redistest.Open(t, m.config(t))
			ctx := within(t, 5*time.Second)
			faulty := redisconn.NewScript("faulty", "return redis.error_reply('MINE because')")
			var calls []redisconn.Call
			for i := range c.Partitions() {
				key := fmt.Sprintf("%s{%s}n%d", c.Prefix(), c.Tag(i), i)
				calls = append(calls,
					redisconn.Command("SET", key, i*10),
					faulty.Call([]string{key}),
					count.Call([]string{key}))
			}
			got := c.RunAll(ctx, calls)
			for i := range c.Partitions() {
				if err := got[3*i+1].Err(); err == nil || errors.Is(err, dray.ErrUnavailable) {
					t.Errorf("faulty call %d = %v, want its own error", i, err)
				}
				if n, err := got[3*i+2].Int(); n != i*10+1 || err != nil {
					t.Errorf("call %d = %d, %v, want %d", i, n, err, i*10+1)
				}
			}
			if got := c.RunAll(ctx, nil); len(got) != 0 {
				t.Errorf("RunAll(nothing) = %v", got)
			}
		})
	}
}

func TestScriptsHealAfterFlush(t *testing.T) {
	s := redistest.Start(t)
	c := redistest.Open(t, s.Config())
	ctx := within(t, 5*time.Second)
	key := c.Prefix() + "n"
	for want := int64(1); want < 6; want += 4 {
		s.Do(t, "SCRIPT", "FLUSH")
		if n, err := c.Run(ctx, count, []string{key}).Int64(); n != want || err != nil {
			t.Errorf("Run() after a flush = %d, %v, want %d", n, err, want)
		}
		s.Do(t, "SCRIPT", "FLUSH")
		got := c.RunAll(ctx, []redisconn.Call{count.Call([]string{key}), redisconn.Command("INCR", key), count.Call([]string{key})})
		for i, cmd := range got {
			if cmd.Err() != nil {
				t.Errorf("call %d after a flush = %v", i, cmd.Err())
			}
		}
	}
	s.Do(t, "SCRIPT", "FLUSH")
	if cmd, _ := c.RunWait(ctx, count, 0, time.Millisecond, []string{key}); cmd.Val() != int64(9) {
		t.Errorf("RunWait() after a flush = %v, want 9", cmd)
	}
}

// A reply that is lost leaves the caller in doubt, and must not make the script run again.
func TestScriptWhoseReplyIsLostRunsOnce(t *testing.T) {
	ways := map[string]func(context.Context, *redisconn.Client, string) error{
		"Run": func(ctx context.Context, c *redisconn.Client, key string) error {
			return c.Run(ctx, count, []string{key}).Err()
		},
		"RunAll": func(ctx context.Context, c *redisconn.Client, key string) error {
			got := c.RunAll(ctx, []redisconn.Call{count.Call([]string{key}), redisconn.Command("PING")})
			return got[0].Err()
		},
		"RunWait": func(ctx context.Context, c *redisconn.Client, key string) error {
			cmd, _ := c.RunWait(ctx, count, 0, time.Millisecond, []string{key})
			return cmd.Err()
		},
	}
	check := func(t *testing.T, config redisconn.Config, server *redistest.Server, proxy *redistest.Proxy) {
		config.ReadTimeout = 200 * time.Millisecond
		c := redistest.Open(t, config)
		for name, run := range ways {
			for fate, word := range map[redistest.Fate]string{redistest.Cut: "cut", redistest.Drop: "dropped"} {
				t.Run(name+" "+word, func(t *testing.T) {
					key := c.Prefix() + "{p0}" + name + word
					ctx := within(t, 10*time.Second)
					if err := run(ctx, c, key); err != nil { // connections are open and the script is known
						t.Fatalf("first run = %v", err)
					}
					lost := proxy.Lost()
					proxy.Replies(fate)
					err := run(ctx, c, key)
					proxy.Replies(redistest.Pass)
					if !errors.Is(err, dray.ErrUnavailable) {
						t.Errorf("err = %v, want ErrUnavailable", err)
					}
					if proxy.Lost() == lost {
						t.Error("the proxy lost nothing")
					}
					if got := server.Do(t, "GET", key); got != "2" {
						t.Errorf("runs = %v, want 2", got)
					}
				})
			}
		}
	}
	t.Run("single", func(t *testing.T) {
		s := redistest.Start(t)
		p := redistest.NewProxy(t, s)
		config := s.Config()
		config.Port = p.Node().Port
		check(t, config, s, p)
	})
	t.Run("cluster", func(t *testing.T) {
		s := redistest.StartCluster(t, true)
		master := s.Master("p0")
		check(t, s.Config(), master, s.Proxy(master))
	})
}

func TestSlowScriptRunsOnce(t *testing.T) {
	for name, config := range map[string]redisconn.Config{
		"single":  redistest.Start(t).Config(),
		"cluster": redistest.StartCluster(t, false).Config(),
	} {
		t.Run(name, func(t *testing.T) {
			config.ReadTimeout = 100 * time.Millisecond
			c := redistest.Open(t, config)
			ctx := within(t, 10*time.Second)
			key := c.Prefix() + "{p0}n"
			c.Run(ctx, slow, []string{key}, 0)
			if err := c.Run(ctx, slow, []string{key}, 400).Err(); !errors.Is(err, dray.ErrUnavailable) {
				t.Errorf("Run(slow) = %v, want ErrUnavailable", err)
			}
			var n int
			eventually(t, 5*time.Second, "Redis answers again", func() bool {
				var err error
				n, err = c.Redis().Get(ctx, key).Int()
				return err == nil
			})
			if n != 2 {
				t.Errorf("runs = %d, want 2", n)
			}
		})
	}
}

func TestDeadlineHoldsAgainstAFrozenServer(t *testing.T) {
	s := redistest.Start(t)
	c := redistest.Open(t, s.Config())
	key := c.Prefix() + "n"
	c.Run(within(t, time.Second), count, []string{key})
	s.Freeze()
	defer s.Thaw()
	for name, run := range map[string]func(context.Context) error{
		"open connection": func(ctx context.Context) error { return c.Run(ctx, count, []string{key}).Err() },
		"new connection":  func(ctx context.Context) error { return c.Run(ctx, count, []string{key}).Err() },
		"pipeline":        func(ctx context.Context) error { return c.RunAll(ctx, []redisconn.Call{count.Call(nil)})[0].Err() },
		"raw":             func(ctx context.Context) error { return c.Redis().Get(ctx, key).Err() },
		"subscribe":       func(ctx context.Context) error { return c.OpenFeed(0, &recorder{}).Subscribe(ctx, "ch") },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			start := time.Now()
			err := run(ctx)
			if took := time.Since(start); !errors.Is(err, dray.ErrUnavailable) || took > 600*time.Millisecond {
				t.Errorf("err = %v after %v, want ErrUnavailable after 200ms", err, took)
			}
		})
	}
}

func TestWrap(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	c := redistest.Open(t, s.Config())
	ctx := within(t, 5*time.Second)
	if err := c.Set(ctx, "k", "v", 0); !errors.Is(err, dray.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Set() without memory = %v, want ErrUnavailable", err)
	}
	s.Do(t, "CONFIG", "SET", "maxmemory", 0)
	s.Do(t, "REPLICAOF", "127.0.0.1", s.Port())
	if err := c.Run(ctx, count, []string{"n"}).Err(); !errors.Is(err, dray.ErrUnavailable) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("Run() on a replica = %v, want ErrUnavailable", err)
	}
	s.Do(t, "REPLICAOF", "NO", "ONE")
	eventually(t, 5*time.Second, "the server is a master again", func() bool { return c.ListPush(ctx, "list", "v") == nil })
	if _, _, err := c.Get(ctx, "list"); !errors.Is(err, dray.ErrUnavailable) {
		t.Errorf("Get(list) = %v, want ErrUnavailable (WRONGTYPE)", err)
	}

	for text, want := range map[string]dray.Code{
		"LOADING Redis is loading the dataset in memory": dray.CodeUnavailable,
		"BUSY Redis is busy running a script":            dray.CodeUnavailable,
		"MISCONF Redis is configured to save":            dray.CodeUnavailable,
		"CLUSTERDOWN The cluster is down":                dray.CodeUnavailable,
		"TRYAGAIN Multiple keys request":                 dray.CodeUnavailable,
		"MASTERDOWN Link with MASTER is down":            dray.CodeUnavailable,
		"NOAUTH Authentication required.":                dray.CodeUnavailable,
		"NOSCRIPT No matching script.":                   dray.CodeUnavailable,
		"ERR max number of clients reached":              dray.CodeUnavailable,
		"ERR wrong number of arguments":                  dray.CodeInternal,
		"CROSSSLOT Keys in request":                      dray.CodeInternal,
		"ERR user_script:1: Script attempted":            dray.CodeInternal,
	} {
		if got := dray.CodeOf(redisconn.Wrap(fakeReply(text))); got != want {
			t.Errorf("Wrap(%s) has code %q, want %q", text, got, want)
		}
	}
	for _, err := range []error{context.DeadlineExceeded, redis.ErrClosed, redis.ErrPoolTimeout} {
		if got := redisconn.Wrap(err); !errors.Is(got, dray.ErrUnavailable) || !errors.Is(got, err) {
			t.Errorf("Wrap(%v) = %v, want ErrUnavailable with its cause", err, got)
		}
	}
	if redisconn.Wrap(nil) != nil || !errors.Is(redisconn.Wrap(redis.Nil), redis.Nil) {
		t.Error("Wrap changes nil or redis.Nil")
	}
}

type fakeReply string

func (e fakeReply) Error() string { return string(e) }
func (e fakeReply) RedisError()   {}
