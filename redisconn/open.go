package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A Client is an open Redis. Safe for concurrent use.
type Client struct {
	config   Config
	mode     Mode
	rdb      redis.UniversalClient
	tags     []string // partition -> hash tag
	hook     hook
	embedded *embedded
	log      *slog.Logger

	mu     sync.Mutex // guards the fields below
	feeds  map[*Feed]struct{}
	closed bool
}

// Open connects to the Redis that config names and looks whether it will do: Redis 7.0 or
// newer, or Valkey, in the mode that config says. It fails with [dray.ErrUnavailable] when
// Redis does not answer or refuses the login, and with an error that names the setting when config is wrong.
func Open(ctx context.Context, config Config) (*Client, error) {
	config, err := config.resolve()
	if err != nil {
		return nil, err
	}
	c := &Client{
		config: config,
		mode:   config.Mode(),
		tags:   []string{"p0"},
		hook:   hook{lost: func() {}},
		log:    config.logger(),
		feeds:  map[*Feed]struct{}{},
	}
	switch c.mode {
	case Embedded:
		if c.embedded, err = startEmbedded(); err != nil {
			return nil, err
		}
		c.config.Host, c.config.Port, c.config.Password = c.embedded.address()
		c.rdb = redis.NewClient(c.config.singleOptions())
	case Single:
		c.rdb = redis.NewClient(c.config.singleOptions())
	case Sentinel:
		c.rdb = redis.NewFailoverClient(c.config.sentinelOptions())
	case Cluster:
		cluster := redis.NewClusterClient(c.config.clusterOptions())
		c.rdb, c.tags = cluster, clusterTags()
		c.hook.lost = func() { cluster.ReloadState(context.Background()) }
	}
	c.rdb.AddHook(c.hook)
	if err := c.check(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Describe(), errors.Join(explain(err), c.Close()))
	}
	return c, nil
}

// The options are explicit where go-redis's defaults would send a command twice, wait longer
// than the caller, or talk to the server about features that are not used here:
//
//   - RESP2: no push messages between replies, on which every command would have to look first.
//   - MaxRetries -1: a command whose reply was lost is not sent again.
//   - ContextTimeoutEnabled: or a 200 ms deadline takes as long as the read timeout.
//   - No CLIENT SETINFO, CLIENT MAINT_NOTIFICATIONS and client-side caching.
const (
	protocol      = 2
	noRetries     = -1
	dials         = 2 // go-redis calls this DialerRetries; it counts tries
	dialPause     = 20 * time.Millisecond
	pipelineBytes = 64 << 10 // of buffer, for each direction of a pipeline connection
)

func (c Config) singleOptions() *redis.Options {
	return &redis.Options{
		Addr: c.addr().String(), Dialer: c.dialer(), DB: c.DB,
		Username: c.Username, Password: c.Password,
		Protocol: protocol, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries:               noRetries, ContextTimeoutEnabled: true,
		DialTimeout: c.dialTimeout(), ReadTimeout: c.readTimeout(), WriteTimeout: c.writeTimeout(),
		DialerRetries: dials, DialerRetryTimeout: dialPause,
		PoolSize: c.PoolSize, PipelinePoolSize: c.pipelinePoolSize(),
		PipelineReadBufferSize: pipelineBytes, PipelineWriteBufferSize: pipelineBytes,
	}
}

func (c Config) sentinelOptions() *redis.FailoverOptions {
	return &redis.FailoverOptions{
		MasterName: c.sentinelName(), SentinelAddrs: addrs(c.Sentinels), Dialer: c.dialer(), DB: c.DB,
		SentinelUsername: c.SentinelUsername, SentinelPassword: c.SentinelPassword,
		Username: c.Username, Password: c.Password,
		Protocol: protocol, DisableIdentity: true,
		MaxRetries: noRetries, ContextTimeoutEnabled: true,
		DialTimeout: c.dialTimeout(), ReadTimeout: c.readTimeout(), WriteTimeout: c.writeTimeout(),
		DialerRetries: dials, DialerRetryTimeout: dialPause,
		PoolSize: c.PoolSize, PipelinePoolSize: c.pipelinePoolSize(),
		PipelineReadBufferSize: pipelineBytes, PipelineWriteBufferSize: pipelineBytes,
	}
}

func (c Config) clusterOptions() *redis.ClusterOptions {
	return &redis.ClusterOptions{
		Addrs: addrs(c.ClusterNodes), Dialer: c.dialer(),
		Username: c.Username, Password: c.Password,
		Protocol: protocol, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries:               noRetries, ContextTimeoutEnabled: true,
		DialTimeout: c.dialTimeout(), ReadTimeout: c.readTimeout(), WriteTimeout: c.writeTimeout(),
		DialerRetries: dials, DialerRetryTimeout: dialPause,
		PoolSize: c.PoolSize, PipelinePoolSize: c.pipelinePoolSize(),
		PipelineReadBufferSize: pipelineBytes, PipelineWriteBufferSize: pipelineBytes,
		// The default of 60 s would hide a new master for that long; see hook.lost too.
		ClusterStateReloadInterval: 2 * time.Second,
		MaxRedirects:               3,
	}
}

// dialer is go-redis's own, but its TLS handshake ends with ctx, and says so.
func (c Config) dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	plain := c.Dialer
	if plain == nil {
		plain = (&net.Dialer{
			Timeout:         c.dialTimeout(),
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		}).DialContext
	}
	if c.TLS == nil {
		return plain
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, c.dialTimeout())
		defer cancel()
		nc, err := plain(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := c.TLS
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName, _, _ = net.SplitHostPort(addr)
		}
		secure := tls.Client(nc, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			return nil, &tlsError{addr, err}
		}
		return secure, nil
	}
}

func addrs(nodes []Node) []string {
	list := make([]string, len(nodes))
	for i, n := range nodes {
		list[i] = n.String()
	}
	return list
}

// Close ends the open feeds and all connections; the data of an embedded Redis is gone. Once is enough.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	var feeds []*Feed
	for f := range c.feeds {
		feeds = append(feeds, f)
	}
	c.mu.Unlock()

	for _, f := range feeds {
		f.Close()
	}
	err := c.rdb.Close()
	if c.embedded != nil {
		c.embedded.close()
	}
	return err
}

// Mode is the mode of the Redis behind c.
func (c *Client) Mode() Mode { return c.mode }

// Prefix begins every key and channel; it may be empty.
func (c *Client) Prefix() string { return c.config.KeyPrefix }

// Redis is the go-redis client, for what this package has no method for. Its errors are as
// [Wrap] makes them and it never sends a command again but in a Cluster, where go-redis does so
// up to three times: what must not run twice goes through [Client.Run] or [Client.RunAll].
func (c *Client) Redis() redis.UniversalClient { return c.rdb }

// Conn is a connection to the server that has a key, for the caller alone, who closes it. It is for
// what must be read of one server: once it is lost it fails, and never goes on with another one.
func (c *Client) Conn(ctx context.Context, key string) (*redis.Conn, error) {
	cluster, ok := c.rdb.(*redis.ClusterClient)
	if !ok {
		return c.rdb.(*redis.Client).Conn(), nil
	}
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return nil, Wrap(err)
	}
	conn := node.Conn()
	conn.AddHook(c.hook) // that of the cluster is above its nodes
	return conn, nil
}

// Partitions is the number of hash tags to spread keys over: 64 in a Cluster, else 1, since one
// Redis is one thread.
func (c *Client) Partitions() int { return len(c.tags) }

// Tag is the hash tag of a partition, 0 <= partition < [Client.Partitions]. Keys with
// "{" + Tag(i) + "}" share a slot.
func (c *Client) Tag(partition int) string { return c.tags[partition] }

// Describe says for people what is open, without secrets.
func (c *Client) Describe() string {
	var b strings.Builder
	switch c.mode {
	case Embedded:
		return "embedded Redis: all data lives in this process only and is gone when it ends; no other node sees it"
	case Single:
		fmt.Fprintf(&b, "Redis at %s", c.config.addr())
	case Sentinel:
		fmt.Fprintf(&b, "Redis %q by Sentinel at %s", c.config.sentinelName(), strings.Join(addrs(c.config.Sentinels), ", "))
	case Cluster:
		fmt.Fprintf(&b, "Redis Cluster at %s", strings.Join(addrs(c.config.ClusterNodes), ", "))
	}
	if c.config.DB != 0 {
		fmt.Fprintf(&b, ", DB %d", c.config.DB)
	}
	if c.config.TLS != nil {
		b.WriteString(", TLS")
	}
	if c.config.Username != "" {
		fmt.Fprintf(&b, ", user %q", c.config.Username)
	}
	if c.config.KeyPrefix != "" {
		fmt.Fprintf(&b, ", prefix %q", c.config.KeyPrefix)
	}
	return b.String()
}
