package redisconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// check pings each master and looks at what it is.
func (c *Client) check(ctx context.Context) error {
	if err := c.rdb.Ping(ctx).Err(); err != nil {
		if strings.Contains(err.Error(), "cluster support disabled") {
			return errors.New("the server belongs to no Redis Cluster: name it in REDIS_HOST, not REDIS_CLUSTER_NODES")
		}
		return err
	}
	switch rdb := c.rdb.(type) {
	case *redis.ClusterClient:
		return Wrap(rdb.ForEachMaster(ctx, c.checkServer))
	case *redis.Client:
		if c.mode != Embedded {
			return c.checkServer(ctx, rdb)
		}
	}
	return nil
}

func (c *Client) checkServer(ctx context.Context, rdb *redis.Client) error {
	text, err := rdb.Do(ctx, "INFO", "server").Text()
	if err != nil {
		if strings.Contains(err.Error(), "section (server) is not supported") {
			return nil // a miniredis somewhere else: a test's
		}
		return Wrap(err)
	}
	return checkInfo(text, c.mode)
}

// checkInfo judges the section "server" of INFO.
func checkInfo(text string, mode Mode) error {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	switch cmp.Or(info["redis_mode"], info["server_mode"]) { // the latter is Valkey's
	case "cluster":
		if mode != Cluster {
			return errors.New("the server is a node of a Redis Cluster: name it in REDIS_CLUSTER_NODES")
		}
	case "sentinel":
		return errors.New("the server is a Sentinel: name it in REDIS_SENTINELS")
	}
	if info["valkey_version"] != "" {
		return nil // Valkey began after Redis 7.2
	}
	version := info["redis_version"]
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 7 {
		return fmt.Errorf("the server has version %.20q: dray needs Redis 7.0 or newer, or Valkey", version)
	}
	return nil
}
