package redisconn_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// modes are the four ways to open Redis.
var modes = []struct {
	name   string
	mode   redisconn.Mode
	config func(testing.TB) redisconn.Config
}{
	{"embedded", redisconn.Embedded, func(t testing.TB) redisconn.Config {
		return redisconn.Config{KeyPrefix: redistest.Prefix(t)}
	}},
	{"single", redisconn.Single, func(t testing.TB) redisconn.Config { return redistest.Single(t).Config() }},
	{"cluster", redisconn.Cluster, func(t testing.TB) redisconn.Config { return redistest.Cluster(t).Config() }},
}

func TestEachModeOpensAndServes(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			c := redistest.Open(t, m.config(t))
			if c.Mode() != m.mode {
				t.Errorf("Mode() = %v, want %v", c.Mode(), m.mode)
			}
			ctx := within(t, 5*time.Second)
			if err := c.Set(ctx, "k", "v", time.Minute); err != nil {
				t.Fatalf("Set() = %v", err)
			}
			if v, found, err := c.Get(ctx, "k"); v != "v" || !found || err != nil {
				t.Errorf("Get(k) = %q, %v, %v, want v, true, nil", v, found, err)
			}
			if v, err := c.Redis().Get(ctx, c.Prefix()+"k").Result(); v != "v" || err != nil {
				t.Errorf("raw Get(prefix+k) = %q, %v, want v, nil", v, err)
			}
			if _, found, err := c.Get(ctx, "missing"); found || err != nil {
				t.Errorf("Get(missing) = %v, %v, want false, nil", found, err)
			}
			wantPartitions := map[redisconn.Mode]int{redisconn.Cluster: 64}[m.mode]
			if wantPartitions == 0 {
				wantPartitions = 1
			}
			if c.Partitions() != wantPartitions {
				t.Errorf("Partitions() = %d, want %d", c.Partitions(), wantPartitions)
			}
		})
	}
}

func TestEmbedded(t *testing.T) {
	c := redistest.Open(t, redisconn.ForDevelopment())
	ctx := within(t, 5*time.Second)

	t.Run("keys expire by the clock", func(t *testing.T) {
		if err := c.Set(ctx, "short", "v", 30*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if _, found, _ := c.Get(ctx, "short"); !found {
			t.Error("the key is gone at once")
		}
		eventually(t, time.Second, "key expires", func() bool {
			_, found, _ := c.Get(ctx, "short")
			return !found
		})
	})
	t.Run("TIME in a script is the real time", func(t *testing.T) {
		s := redisconn.NewScript("time", "return redis.call('TIME')[1]")
		got, err := c.Run(ctx, s, nil).Int64()
		if now := time.Now().Unix(); err != nil || got < now-2 || got > now+1 {
			t.Errorf("TIME = %d, %v, want about %d", got, err, now)
		}
	})
	t.Run("it says that it keeps nothing", func(t *testing.T) {
		if d := c.Describe(); !strings.Contains(d, "this process only") {
			t.Errorf("Describe() = %q", d)
		}
	})
	t.Run("closing twice does no harm", func(t *testing.T) {
		other := redistest.Open(t, redisconn.Config{})
		f := other.OpenFeed(0, &recorder{})
		if err := other.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
		f.Close()
		other.OpenFeed(0, &recorder{}).Close()
		if err := other.Set(ctx, "k", "v", 0); !errors.Is(err, dray.ErrUnavailable) {
			t.Errorf("Set() when closed = %v, want ErrUnavailable", err)
		}
	})
	t.Run("two are apart", func(t *testing.T) {
		other := redistest.Open(t, redisconn.Config{})
		_ = c.Set(ctx, "mine", "v", 0)
		if _, found, err := other.Get(ctx, "mine"); found || err != nil {
			t.Errorf("Get() from the other = %v, %v, want false, nil", found, err)
		}
	})
}

func TestOpenWithUserAndDatabase(t *testing.T) {
	s := redistest.Start(t, "--user", "dray", "on", ">se:c@ret", "~*", "&*", "+@all", "--requirepass", "se:c@ret")
	for _, test := range []struct {
		name   string
		change func(*redisconn.Config)
		want   string // in the error; empty when it opens
	}{
		{"user and password", func(c *redisconn.Config) { c.Username, c.Password = "dray", "se:c@ret" }, ""},
		{"password alone", func(c *redisconn.Config) { c.Password = "se:c@ret" }, ""},
		{"database", func(c *redisconn.Config) { c.Password, c.DB = "se:c@ret", 3 }, ""},
		{"URL", func(c *redisconn.Config) {
			*c = redisconn.Config{URL: "redis://dray:se%3Ac%40ret@" + s.Addr() + "/3", KeyPrefix: c.KeyPrefix}
		}, ""},
		{"wrong password", func(c *redisconn.Config) { c.Username, c.Password = "dray", "wr0ng" }, "Redis refuses the user name or the password: look at REDIS_USERNAME and REDIS_PASSWORD"},
		{"no password", func(c *redisconn.Config) {}, "Redis wants a password: set REDIS_PASSWORD"},
		{"no such database", func(c *redisconn.Config) { c.Password, c.DB = "se:c@ret", 999 }, "out of range"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := s.Config()
			test.change(&config)
			c, err := redisconn.Open(within(t, 5*time.Second), config)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "wr0ng") {
					t.Errorf("Open() = %v, want %q without the password", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatalf("Open() = %v", err)
			}
			defer c.Close()
			if strings.Contains(c.Describe(), "c@ret") {
				t.Errorf("Describe() = %q tells the password", c.Describe())
			}
			f := c.OpenFeed(0, &recorder{}) // it logs in on its own connection
			if err := f.Subscribe(within(t, 3*time.Second), "ch"); err != nil {
				t.Errorf("Subscribe() = %v", err)
			}
		})
	}
}

func TestOpenKeepsDatabasesApart(t *testing.T) {
	config := redistest.Single(t).Config()
	zero := redistest.Open(t, config)
	config.DB = 5
	five := redistest.Open(t, config)
	ctx := within(t, 5*time.Second)
	if err := five.Set(ctx, "k", "v", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, found, err := zero.Get(ctx, "k"); found || err != nil {
		t.Errorf("Get() in DB 0 = %v, %v, want false, nil", found, err)
	}
}

func TestOpenRefusesOtherServers(t *testing.T) {
	for _, test := range []struct {
		name, info, want string
	}{
		{"Redis 6.2", "redis_version:6.2.14", "6.2.14"},
		{"no version", "tool:other", "7.0"},
		{"node of a Cluster", "redis_version:7.0.15\r\nredis_mode:cluster", "REDIS_CLUSTER_NODES"},
		{"Sentinel", "redis_version:7.0.15\r\nredis_mode:sentinel", "REDIS_SENTINELS"},
		{"Redis 7.0", "redis_version:7.0.0\r\nredis_mode:standalone", ""},
		{"Redis 10", "redis_version:10.1.0", ""},
		{"Valkey", "redis_version:7.2.4\r\nvalkey_version:8.1.0", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := redisconn.Open(within(t, 5*time.Second), fakeServer(t, test.info))
			if test.want == "" {
				if err != nil {
					t.Fatalf("Open() = %v", err)
				}
				_ = c.Close()
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open() = %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestOpenRefusesASingleServerAsCluster(t *testing.T) {
	s := redistest.Single(t)
	_, err := redisconn.Open(within(t, 5*time.Second), redisconn.ForCluster(s.Node()))
	if err == nil || !strings.Contains(err.Error(), "REDIS_CLUSTER_NODES") {
		t.Errorf("Open() = %v, want REDIS_CLUSTER_NODES in it", err)
	}
}

func TestOpenWithoutServerIsUnavailable(t *testing.T) {
	s := redistest.Start(t)
	s.Stop()
	for name, config := range map[string]redisconn.Config{
		"single":   s.Config(),
		"sentinel": redisconn.ForProduction("stock", s.Node()),
		"cluster":  redisconn.ForCluster(s.Node()),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := redisconn.Open(within(t, 5*time.Second), config)
			if !errors.Is(err, dray.ErrUnavailable) {
				t.Errorf("Open() = %v, want ErrUnavailable", err)
			}
		})
	}
}

func TestAConnStaysWithItsServer(t *testing.T) {
	for _, m := range modes[1:] { // embedded has no CLIENT KILL
		t.Run(m.name, func(t *testing.T) {
			c := redistest.Open(t, m.config(t))
			ctx := within(t, 5*time.Second)
			var conns [2]*redis.Conn
			for i := range conns {
				var err error
				if conns[i], err = c.Conn(ctx, c.Prefix()+"k"); err != nil {
					t.Fatalf("Conn() = %v", err)
				}
				defer conns[i].Close()
				if err := conns[i].Set(ctx, c.Prefix()+"k", i, time.Minute).Err(); err != nil {
					t.Fatalf("Set() = %v", err)
				}
			}
			if err := conns[1].ClientKillByFilter(ctx, "ID", strconv.FormatInt(conns[0].ClientID(ctx).Val(), 10)).Err(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := conns[0].Get(ctx, c.Prefix()+"k").Err(); !errors.Is(err, dray.ErrUnavailable) {
					t.Errorf("Get() on a connection that is cut = %v, want ErrUnavailable", err)
				}
			}
			if got, err := conns[1].Get(ctx, c.Prefix()+"k").Result(); got != "1" || err != nil {
				t.Errorf("Get() on the other = %s, %v, want 1", got, err)
			}
		})
	}
}

// A name that moved to another partition would be lost where it is kept.
func TestPartitionOfANameStays(t *testing.T) {
	one, many := redistest.Open(t, redisconn.ForDevelopment()), redistest.Open(t, redistest.Cluster(t).Config())
	for name, want := range map[string]int{"default": 14, "shop": 38, "van-7": 6, "d1": 17, "order-4711": 47} {
		if got := many.Partition(name); got != want {
			t.Errorf("Partition(%s) = %d, want %d of 64", name, got, want)
		}
		if got := one.Partition(name); got != 0 {
			t.Errorf("Partition(%s) = %d, want 0 of 1", name, got)
		}
	}
}

func TestTagsAreSpreadEvenly(t *testing.T) {
	c := redistest.Open(t, redistest.Cluster(t).Config())
	for _, bounds := range [][]int{ // first slots as redis-cli --cluster create deals them
		{0, 5461, 10923},
		{0, 2731, 5461, 8192, 10923, 13653},
	} {
		counts := make([]int, len(bounds))
		for i := range c.Partitions() {
			slot := redisconn.Slot(c.Tag(i))
			if slot < i*256 || slot >= (i+1)*256 {
				t.Errorf("Slot(Tag(%d)) = %d, want it in [%d, %d)", i, slot, i*256, (i+1)*256)
			}
			master := len(bounds) - 1
			for bounds[master] > slot {
				master--
			}
			counts[master]++
		}
		if slices.Max(counts)-slices.Min(counts) > 1 {
			t.Errorf("partitions on %d masters = %v, want equal to within 1", len(bounds), counts)
		}
	}
	// CLUSTER KEYSLOT says the same.
	got, err := c.Redis().ClusterKeySlot(within(t, time.Second), "{"+c.Tag(17)+"}").Result()
	if want := int64(redisconn.Slot(c.Tag(17))); got != want || err != nil {
		t.Errorf("CLUSTER KEYSLOT = %d, %v, want %d", got, err, want)
	}
}
