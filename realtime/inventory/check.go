package inventory

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

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
		said := parseInfo(info)
		if err := judge(cfg, node.Options().Addr, said); err != nil {
			return err
		}
		comparePriorities(ctx, cfg, node, said)
		return nil
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
		text := "maxmemory-policy of Redis at %s is %s: it drops stock and holds when memory is full; set it to noeviction, or to a policy that begins with volatile-"
		if !cfg.AllowEviction {
			return fmt.Errorf(text, addr, policy)
		}
		cfg.Logger.Warn(fmt.Sprintf(text, addr, policy))
	}
	if info["aof_enabled"] == "0" {
		cfg.Logger.Warn("Redis writes no append-only file: stock and reservations of the last minutes, or all, are gone when it restarts", "redis", addr)
	}
	if n, _ := strconv.Atoi(info["connected_slaves"]); n < cfg.Replicas {
		cfg.Logger.Warn("Redis has fewer replicas than changes wait for: they will fail with durability_not_reached", "redis", addr, "replicas", n, "wanted", cfg.Replicas)
	}
	return nil
}

// comparePriorities warns where the replicas of a master have unequal priorities: at a failover
// the preferred one takes over, though another may have more. Replicas that cannot be asked are left out.
func comparePriorities(ctx context.Context, cfg Config, master *redis.Client, info map[string]string) {
	priorities := map[string][]string{} // priority -> replicas
	for i := 0; ; i++ {
		replica, ok := info["slave"+strconv.Itoa(i)]
		if !ok {
			break
		}
		at := map[string]string{} // ip, port, state ...
		for pair := range strings.SplitSeq(replica, ",") {
			name, value, _ := strings.Cut(pair, "=")
			at[name] = value
		}
		addr := net.JoinHostPort(at["ip"], at["port"])
		if said, err := askReplica(ctx, master, addr); err == nil {
			p := said["slave_priority"]
			priorities[p] = append(priorities[p], addr)
		}
	}
	if len(priorities) > 1 {
		cfg.Logger.Warn("replicas have unequal replica-priority: a failover may prefer a stale one, and lose what others have", "priorities", fmt.Sprint(priorities))
	}
}

// askReplica asks a replica about itself, with the credentials of its master.
func askReplica(ctx context.Context, master *redis.Client, addr string) (map[string]string, error) {
	o := *master.Options()
	options := &redis.Options{
		Addr: addr, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig, Protocol: o.Protocol, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries:               -1, DialTimeout: time.Second, ReadTimeout: time.Second, ContextTimeoutEnabled: true, PoolSize: 1,
	}
	replica := redis.NewClient(options)
	defer replica.Close()
	info, err := replica.Info(ctx, "replication").Result()
	return parseInfo(info), err
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
