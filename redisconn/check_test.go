package redisconn_test

import (
	"strings"
	"testing"

	"dray/redisconn"
)

// Valkey tells the version of Redis that it is compatible with before its own, and its mode
// as server_mode unless it is asked to be as Redis.
const valkey = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nvalkey_release_stage:ga\r\n" +
	"redis_git_sha1:00000000\r\nserver_mode:standalone\r\nos:Linux 6.1.0 x86_64\r\ntcp_port:6379\r\n"

func TestKindsOfServers(t *testing.T) {
	for _, c := range []struct {
		name, info string
		mode       redisconn.Mode
		want       string // part of the refusal; "" for none
	}{
		{"Redis 7.0", "redis_version:7.0.15\r\nredis_mode:standalone\r\n", redisconn.Single, ""},
		{"Redis 8", "redis_version:8.2.0\r\nredis_mode:standalone\r\n", redisconn.Single, ""},
		{"Redis 6", "redis_version:6.2.14\r\nredis_mode:standalone\r\n", redisconn.Single, "Redis 7.0 or newer"},
		{"a server that tells no version", "redis_mode:standalone\r\n", redisconn.Single, "Redis 7.0 or newer"},
		{"Valkey", valkey, redisconn.Single, ""},
		{"Valkey that would not be Redis 7", strings.Replace(valkey, "7.2.4", "255.255.255", 1), redisconn.Single, ""},
		{"Valkey without a version of Redis", strings.Replace(valkey, "redis_version:7.2.4\r\n", "", 1), redisconn.Single, ""},
		{"Valkey in a Cluster", strings.Replace(valkey, "standalone", "cluster", 1), redisconn.Cluster, ""},
		{"a node of a Valkey Cluster as a single server", strings.Replace(valkey, "standalone", "cluster", 1), redisconn.Single, "REDIS_CLUSTER_NODES"},
		{"a Valkey Sentinel as a single server", strings.Replace(valkey, "standalone", "sentinel", 1), redisconn.Single, "REDIS_SENTINELS"},
		{"a node of a Redis Cluster as a single server", "redis_version:7.0.15\r\nredis_mode:cluster\r\n", redisconn.Single, "REDIS_CLUSTER_NODES"},
	} {
		err := redisconn.CheckInfo(c.info, c.mode)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: checkInfo() = %v, want %q", c.name, err, c.want)
		}
	}
}
