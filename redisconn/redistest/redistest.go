// Package redistest starts real Redis servers for tests: single ones, a Cluster, a set behind
// Sentinel, and a proxy that loses replies. They listen on free loopback ports, keep nothing, and
// end with the test, or with the test program should it crash.
//
// The binary is redis-server from PATH or REDIS_SERVER_BIN. Without one a test is skipped, or
// fails where CI is set. A package that uses the shared servers of [Single] and [Cluster] needs
//
//	func TestMain(m *testing.M) { redistest.Main(m) }
package redistest

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"dray/redisconn"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// Main runs the tests, ends the shared servers, and fails when a goroutine is left behind.
// A go-redis pool that could not dial looks once a second whether it was closed: such a goroutine may outlive it.
func Main(m *testing.M) {
	goleak.VerifyTestMain(runner{m}, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

type runner struct{ m *testing.M }

func (r runner) Run() int {
	defer shared.stop()
	return r.m.Run()
}

// shared holds the servers that all tests of a program use: starting a Cluster takes seconds.
var shared servers

type servers struct {
	mu      sync.Mutex // guards the fields below
	single  *Server
	cluster *ClusterServers
}

func (s *servers) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.single != nil {
		s.single.close()
	}
	if s.cluster != nil {
		s.cluster.close()
	}
	s.single, s.cluster = nil, nil
}

// Prefix is a key prefix that no other test uses.
func Prefix(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, t.Name())
	return name[:min(len(name), 40)] + ":" + rand.Text()[:8] + ":"
}

// Open opens config and, when the test ends, removes the keys with its prefix and closes it.
func Open(t testing.TB, config redisconn.Config) *redisconn.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := redisconn.Open(ctx, config)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() {
		clean(client)
		if err := client.Close(); err != nil {
			t.Errorf("redistest: Close() = %v", err)
		}
	})
	return client
}

// clean removes a test's keys, as far as the servers still answer.
func clean(client *redisconn.Client) {
	if client.Prefix() == "" || client.Mode() == redisconn.Embedded {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	each := func(ctx context.Context, node *redis.Client) error {
		keys := node.Scan(ctx, 0, client.Prefix()+"*", 1000).Iterator()
		for keys.Next(ctx) {
			node.Unlink(ctx, keys.Val())
		}
		return keys.Err()
	}
	switch rdb := client.Redis().(type) {
	case *redis.ClusterClient:
		_ = rdb.ForEachMaster(ctx, each)
	case *redis.Client:
		_ = each(ctx, rdb)
	}
}

// binary finds redis-server, or ends the test.
func binary(t testing.TB) string {
	t.Helper()
	name := os.Getenv("REDIS_SERVER_BIN")
	if name == "" {
		name = "redis-server"
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("redistest: no %s, and CI is set: %v", name, err)
	}
	t.Skipf("SKIP-NO-REDIS: %v; install redis-server or set REDIS_SERVER_BIN", err)
	return ""
}

// eventually asks ok until it is true; the test fails when limit passes first.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > limit {
			t.Fatalf("redistest: %s: not within %v", what, limit)
		}
	}
}
