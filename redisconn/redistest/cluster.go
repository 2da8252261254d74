package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray/redisconn"
)

// ClusterServers are a Redis Cluster of three masters with a replica each, and a node timeout of 1 s.
type ClusterServers struct {
	Servers []*Server // at first the masters are 0 to 2, and 3 to 5 their replicas in that order
	Proxies []*Proxy  // in front of each server, if [StartCluster] was asked for them
	prefix  string
}

// Cluster gives a Cluster that all tests of the program share. Do not stop its nodes or flush
// it; see [StartCluster] for that.
func Cluster(t testing.TB) *ClusterServers {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster == nil {
		shared.cluster = startCluster(t, false)
	}
	c := *shared.cluster
	c.prefix = Prefix(t)
	return &c
}

// StartCluster gives a Cluster of its own to a test; it takes some seconds. With proxies, each
// node is announced under the address of a [Proxy] in front of it.
func StartCluster(t testing.TB, proxies bool) *ClusterServers {
	t.Helper()
	c := startCluster(t, proxies)
	c.prefix = Prefix(t)
	t.Cleanup(c.close)
	return c
}

// Config opens the Cluster, with a key prefix of the test's own.
func (c *ClusterServers) Config() redisconn.Config {
	var nodes []redisconn.Node
	for i, s := range c.Servers {
		if len(c.Proxies) > 0 {
			nodes = append(nodes, c.Proxies[i].Node())
		} else {
			nodes = append(nodes, s.Node())
		}
	}
	return redisconn.Config{ClusterNodes: nodes, KeyPrefix: c.prefix}
}

func (c *ClusterServers) close() {
	for _, s := range c.Servers {
		s.close()
	}
	for _, p := range c.Proxies {
		p.close()
	}
}

// shares are the first slots of the three masters, as redis-cli deals them, and the end.
var shares = [...]int{0, 5461, 10923, 16384}

func startCluster(t testing.TB, proxies bool) *ClusterServers {
	t.Helper()
	c := &ClusterServers{}
	good := false
	defer func() {
		if !good {
			c.close()
		}
	}()
	bus := make([]int, 6)
	for i := range bus {
		bus[i] = freePort()
		options := []string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", strconv.Itoa(bus[i]),
			"--cluster-replica-validity-factor", "0",
		}
		if proxies {
			p := newProxy(t)
			c.Proxies = append(c.Proxies, p)
			options = append(options, "--cluster-announce-port", strconv.Itoa(p.Node().Port))
		}
		s := startServer(t, options)
		c.Servers = append(c.Servers, s)
		if proxies {
			c.Proxies[i].to(s.Addr())
		}
	}
	first := c.Servers[0]
	for i, s := range c.Servers {
		s.Do(t, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i < 3 {
			s.Do(t, "CLUSTER", "ADDSLOTSRANGE", shares[i], shares[i+1]-1)
		}
	}
	for i, s := range c.Servers[1:] {
		first.Do(t, "CLUSTER", "MEET", "127.0.0.1", s.Port(), bus[i+1])
	}
	for i, s := range c.Servers[3:] {
		id := c.Servers[i].Do(t, "CLUSTER", "MYID")
		eventually(t, 20*time.Second, "replica knows its master", func() bool {
			_, err := s.try("CLUSTER", "REPLICATE", id)
			return err == nil
		})
	}
	for i, s := range c.Servers {
		eventually(t, 30*time.Second, fmt.Sprintf("node %d is ready", i), func() bool {
			return s.says("cluster_state:ok", "CLUSTER", "INFO") && s.says("cluster_known_nodes:6", "CLUSTER", "INFO") &&
				s.says("cluster_size:3", "CLUSTER", "INFO") && c.sees(s) &&
				(i < 3 || s.says("master_link_status:up", "INFO", "replication"))
		})
	}
	good = true
	return c
}

// sees tells whether s has heard that three of the nodes are replicas.
func (c *ClusterServers) sees(s *Server) bool {
	v, err := s.try("CLUSTER", "NODES")
	text, _ := v.(string)
	return err == nil && strings.Count(text, "slave ") == 3
}

func (p *process) says(word string, args ...any) bool {
	v, err := p.try(args...)
	text, _ := v.(string)
	return err == nil && strings.Contains(text, word)
}

// Master finds the server that answers for the slot of a hash tag, as the other servers see it; nil
// when none does.
func (c *ClusterServers) Master(tag string) *Server {
	for _, s := range c.Servers {
		if !s.says("role:master", "INFO", "replication") {
			continue
		}
		if _, err := s.try("EXISTS", "{"+tag+"}"); err == nil {
			return s
		}
	}
	return nil
}

// Proxy is the proxy in front of s.
func (c *ClusterServers) Proxy(s *Server) *Proxy {
	for i := range c.Proxies {
		if c.Servers[i].process == s.process {
			return c.Proxies[i]
		}
	}
	return nil
}
