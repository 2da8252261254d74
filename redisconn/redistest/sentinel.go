package redistest

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"dray/redisconn"
)

// SentinelServers are a master, its replica, and three Sentinels that find it down after 1 s.
type SentinelServers struct {
	Master, Replica *Server
	Sentinels       []*Server
	prefix          string
}

// Sentinel gives servers behind Sentinel to a test; it takes some seconds.
func Sentinel(t testing.TB) *SentinelServers {
	t.Helper()
	s := &SentinelServers{prefix: Prefix(t)}
	s.Master = Start(t)
	s.Replica = Start(t, "--replicaof", "127.0.0.1", fmt.Sprint(s.Master.Port()))
	for range 3 {
		sentinel := startSentinel(t, s.Master.Port())
		t.Cleanup(sentinel.close)
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	eventually(t, 10*time.Second, "replica is attached", func() bool {
		return s.Replica.says("master_link_status:up", "INFO", "replication")
	})
	for _, sentinel := range s.Sentinels {
		eventually(t, 30*time.Second, "Sentinels know each other", func() bool {
			return sentinel.says("status=ok,address=127.0.0.1:"+fmt.Sprint(s.Master.Port())+",slaves=1,sentinels=3", "INFO", "sentinel")
		})
	}
	return s
}

// SentinelTLS is a master and one Sentinel that speak TLS only; options give their certificate.
func SentinelTLS(t testing.TB, options ...string) *SentinelServers {
	t.Helper()
	s := &SentinelServers{prefix: Prefix(t), Master: StartTLS(t, options...)}
	port := freePort()
	conf := fmt.Sprintf("bind 127.0.0.1\nsentinel monitor stock 127.0.0.1 %d 1\n", s.Master.Port())
	args := append([]string{"sentinel.conf", "--sentinel", "--port", "0", "--tls-port", strconv.Itoa(port), "--tls-replication", "yes"}, options...)
	sentinel, err := startProcess(binary(t), port, map[string]string{"sentinel.conf": conf}, args)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(sentinel.close)
	s.Sentinels = []*Server{sentinel}
	return s
}

// Config opens the master by way of the Sentinels, with a key prefix of the test's own.
func (s *SentinelServers) Config() redisconn.Config {
	c := redisconn.ForProduction("stock")
	for _, sentinel := range s.Sentinels {
		c.Sentinels = append(c.Sentinels, sentinel.Node())
	}
	c.KeyPrefix = s.prefix
	return c
}

func startSentinel(t testing.TB, master int) *Server {
	t.Helper()
	path := binary(t)
	for try := 1; ; try++ {
		port := freePort()
		conf := fmt.Sprintf("port %d\nbind 127.0.0.1\nsentinel monitor stock 127.0.0.1 %d 2\n"+
			"sentinel down-after-milliseconds stock 1000\nsentinel failover-timeout stock 5000\n", port, master)
		s, err := startProcess(path, port, map[string]string{"sentinel.conf": conf}, []string{"sentinel.conf", "--sentinel"})
		if err == nil {
			return s
		}
		if try == 3 {
			t.Fatalf("redistest: %v", err)
		}
	}
}
