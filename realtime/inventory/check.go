package inventory

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"dray/redisconn"
)

// checkServer looks whether a Redis keeps what it is given. It refuses one that may evict stock,
// and warns of what a restart or failover would lose.
func checkServer(ctx context.Context, cfg Config) error {
	if cfg.Redis.Mode() == redisconn.Embedded {
		return nil
	}
	each := func(ctx context.Context, node *redis.Client) error {
		info, err := node.Info(ctx, "memory", "persistence", "replication").Result()
		if err != nil {
			return redisconn.Wrap(err)
		}
		return judge(cfg, node.Options().Addr, parseInfo(info))
	}
	switch rdb := cfg.Redis.Redis().(type) {
	case *redis.ClusterClient:
		return rdb.ForEachMaster(ctx, each)
	case *redis.Client:
		return each(ctx, rdb)
	}
	return nil
}

// judge looks at what a master says of itself.
func judge(cfg Config, addr string, info map[string]string) error {
	policy := info["maxmemory_policy"]
	if strings.HasPrefix(policy, "allkeys-") {
		text := "maxmemory-policy of Redis at %s is %s: it drops stock and holds when memory is full; set it to noeviction or to one of volatile-..."
		if !cfg.AllowEviction {
			return fmt.Errorf(text, addr, policy)
		}
		cfg.Logger.Warn(fmt.Sprintf(text, addr, policy))
	}
	if info["aof_enabled"] == "0" {
		cfg.Logger.Warn("Redis writes no append-only file: stock and reservations of the last minutes, or all, are gone when it restarts", "redis", addr)
	}
	if n := info["connected_slaves"]; cfg.Replicas > 0 && (n == "" || n < "1") {
		cfg.Logger.Warn("Redis has no replica, but changes wait for some: they will fail with durability_not_reached", "redis", addr, "wanted", cfg.Replicas)
	}
	return nil
}

func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}
