package loadtest

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

func openRedis(address string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: address, Protocol: 2, DisableIdentity: true, MaxRetries: -1, PoolSize: 64,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		ReadTimeout:              10 * time.Second, ContextTimeoutEnabled: true,
	})
}

// A redisWatch counts the commands that a Redis was given.
type redisWatch struct {
	rdb    *redis.Client
	before map[string]int64
}

// newRedisWatch begins to count; where address is empty or does not answer it knows nothing.
func newRedisWatch(ctx context.Context, address string) *redisWatch {
	w := &redisWatch{}
	if address != "" {
		w.rdb = openRedis(address)
		w.before = w.calls(ctx)
	}
	return w
}

// calls is how often each command was called so far; nil where that is not known.
func (w *redisWatch) calls(ctx context.Context) map[string]int64 {
	text, err := w.rdb.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil
	}
	calls := map[string]int64{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, ",")
		n, err := strconv.ParseInt(number, 10, 64)
		if err == nil {
			calls[name] = n
		}
	}
	return calls
}

// since is how often each command was called since the watch began, without its own.
func (w *redisWatch) since(ctx context.Context) map[string]int64 {
	if w.before == nil {
		return nil
	}
	now := w.calls(ctx)
	if now == nil {
		return nil
	}
	for name, n := range now {
		if n -= w.before[name]; n > 0 && name != "info" {
			now[name] = n
		} else {
			delete(now, name)
		}
	}
	return now
}

func (w *redisWatch) close() {
	if w.rdb != nil {
		w.rdb.Close()
	}
}
