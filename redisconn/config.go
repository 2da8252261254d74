package redisconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Mode is the kind of Redis behind a [Client].
type Mode string

// The four modes. Embedded is what a Config without any address gives.
const (
	Embedded Mode = "embedded" // inside this process, empty at each start
	Single   Mode = "single"   // one server
	Sentinel Mode = "sentinel" // a master that Redis Sentinel names and replaces
	Cluster  Mode = "cluster"  // Redis Cluster
)

// A Node is the address of one server.
type Node struct {
	Host string `json:"host"`
	Port int    `json:"port"`
}

func (n Node) String() string { return net.JoinHostPort(n.Host, strconv.Itoa(n.Port)) }

// Config says which Redis to open and how. The zero value is an embedded one.
//
// At most one of these names a server: URL, Host (or Port), Sentinels, ClusterNodes.
// In brackets: the name of the environment variable that [FromEnv] reads.
type Config struct {
	// URL is redis://[user[:password]@]host[:port][/db], or rediss:// for TLS [REDIS_URL].
	URL string

	Host string // [REDIS_HOST] default 127.0.0.1 when Port is set
	Port int    // [REDIS_PORT] default 6379 when Host is set

	Username string // [REDIS_USERNAME] default none, which is Redis's user "default"
	Password string // [REDIS_PASSWORD] default none
	DB       int    // [REDIS_DB] 0 to 1,000,000; not with a Cluster, which has 0 only

	// TLS is used on every connection, those to Sentinels too. Nil means plain TCP.
	// ServerName may be empty: then it is the host that is dialled. [REDIS_TLS]
	TLS *tls.Config

	// Dialer makes the connections, under TLS where that is set. Nil means net.Dialer's.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

	// KeyPrefix begins every key and channel, so that several programs can share a Redis.
	// 0 to 64 printable ASCII letters but no space, '{' or '}' [REDIS_KEY_PREFIX].
	// Channels know no DB: programs on different DBs of one server need prefixes as well.
	KeyPrefix string

	Sentinels        []Node // [REDIS_SENTINELS]
	SentinelName     string // [REDIS_SENTINEL_NAME] the master's name; default "mymaster"
	SentinelUsername string // for the Sentinels themselves; default none
	SentinelPassword string // for the Sentinels themselves; default none

	ClusterNodes []Node // [REDIS_CLUSTER_NODES] some of the nodes; the others are found

	DialTimeout  time.Duration // for one try to connect, of two; zero means 1 s
	ReadTimeout  time.Duration // for the answer to one command or pipeline; zero means 2 s
	WriteTimeout time.Duration // zero means 2 s

	PoolSize         int // connections to a server for commands; zero means 10 per CPU
	PipelinePoolSize int // connections to a server for pipelines, made when needed; zero means 32

	// Logger hears of lost and repaired feeds. Nil means slog.Default().
	Logger *slog.Logger
}

// ForDevelopment is a Redis inside this process: nothing to install, and nothing kept.
func ForDevelopment() Config { return Config{} }

// ForProduction is the master that Redis Sentinel knows by name.
func ForProduction(name string, sentinels ...Node) Config {
	return Config{SentinelName: name, Sentinels: sentinels}
}

// ForCluster is the Redis Cluster that some nodes belong to.
func ForCluster(nodes ...Node) Config { return Config{ClusterNodes: nodes} }

// Mode is the mode that c asks for.
func (c Config) Mode() Mode {
	switch {
	case len(c.ClusterNodes) > 0:
		return Cluster
	case len(c.Sentinels) > 0:
		return Sentinel
	case c.URL != "" || c.Host != "" || c.Port != 0:
		return Single
	}
	return Embedded
}

func (c Config) addr() Node {
	return Node{cmp.Or(c.Host, "127.0.0.1"), cmp.Or(c.Port, 6379)}
}

func (c Config) sentinelName() string        { return cmp.Or(c.SentinelName, "mymaster") }
func (c Config) dialTimeout() time.Duration  { return cmp.Or(c.DialTimeout, time.Second) }
func (c Config) readTimeout() time.Duration  { return cmp.Or(c.ReadTimeout, 2*time.Second) }
func (c Config) writeTimeout() time.Duration { return cmp.Or(c.WriteTimeout, 2*time.Second) }
func (c Config) pipelinePoolSize() int       { return cmp.Or(c.PipelinePoolSize, 32) }
func (c Config) logger() *slog.Logger        { return cmp.Or(c.Logger, slog.Default()) }

// Validate reports every setting that is wrong or contradicts another, by name. No message
// holds a password or a URL.
func (c Config) Validate() error {
	_, err := c.resolve()
	return err
}

// resolve checks c and takes its URL apart.
func (c Config) resolve() (Config, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	c.checkAddresses(fault)
	if c.URL != "" {
		c.parseURL(fault)
	}
	if c.Port < 0 || c.Port > 65535 {
		fault("REDIS_PORT is %d: it must be 1 to 65535", c.Port)
	}
	if strings.ContainsAny(c.Host, " /@") {
		fault("REDIS_HOST must be a host name or an IP address alone")
	}
	if c.DB < 0 || c.DB > 1_000_000 {
		fault("REDIS_DB is %d: it must be 0 to 1000000", c.DB)
	}
	if c.Username != "" && c.Password == "" {
		fault("REDIS_USERNAME is set without REDIS_PASSWORD")
	}
	if len(c.KeyPrefix) > 64 || strings.ContainsFunc(c.KeyPrefix, notInPrefix) {
		fault("REDIS_KEY_PREFIX must be at most 64 printable ASCII letters without space, '{' and '}'")
	}
	checkNodes("REDIS_SENTINELS", c.Sentinels, fault)
	checkNodes("REDIS_CLUSTER_NODES", c.ClusterNodes, fault)
	if c.DialTimeout < 0 || c.ReadTimeout < 0 || c.WriteTimeout < 0 {
		fault("DialTimeout, ReadTimeout or WriteTimeout is negative")
	}
	if c.PoolSize < 0 || c.PipelinePoolSize < 0 {
		fault("PoolSize or PipelinePoolSize is negative")
	}
	if len(faults) > 0 {
		return Config{}, fmt.Errorf("redisconn: %w", errors.Join(faults...))
	}
	return c, nil
}

// checkAddresses finds settings that name two servers, or none where one is meant.
func (c Config) checkAddresses(fault func(string, ...any)) {
	var set []string
	for _, s := range []struct {
		name string
		set  bool
	}{
		{"REDIS_URL", c.URL != ""},
		{"REDIS_HOST", c.Host != ""},
		{"REDIS_PORT", c.Port != 0 && c.Host == ""},
		{"REDIS_SENTINELS", len(c.Sentinels) > 0},
		{"REDIS_CLUSTER_NODES", len(c.ClusterNodes) > 0},
	} {
		if s.set {
			set = append(set, s.name)
		}
	}
	if len(set) > 1 {
		fault("%s contradict each other: set one of them", strings.Join(set, " and "))
	}
	if len(c.Sentinels) == 0 && (c.SentinelName != "" || c.SentinelUsername != "" || c.SentinelPassword != "") {
		fault("REDIS_SENTINEL_NAME (or a user or password for Sentinel) is set without REDIS_SENTINELS")
	}
	if len(c.ClusterNodes) > 0 && c.DB != 0 {
		fault("REDIS_DB contradicts REDIS_CLUSTER_NODES: a Cluster has DB 0 only")
	}
	if len(set) > 0 {
		return
	}
	// Without an address these would be lost in silence, and with them the data.
	for _, s := range []struct {
		name string
		set  bool
	}{
		{"REDIS_USERNAME", c.Username != ""},
		{"REDIS_PASSWORD", c.Password != ""},
		{"REDIS_DB", c.DB != 0},
		{"REDIS_TLS", c.TLS != nil},
	} {
		if s.set {
			fault("%s is set, but none of REDIS_URL, REDIS_HOST, REDIS_SENTINELS, REDIS_CLUSTER_NODES", s.name)
		}
	}
}

// parseURL moves the parts of c.URL into the other fields. The errors of net/url quote the
// whole URL, password and all, so none of them is passed on.
func (c *Config) parseURL(fault func(string, ...any)) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Opaque != "" || (u.Scheme != "redis" && u.Scheme != "rediss") {
		fault("REDIS_URL must have the form redis://[user[:password]@]host[:port][/db], or rediss:// for TLS; " +
			"letters like @ : / # in a password are percent-encoded")
		return
	}
	if u.RawQuery != "" || u.Fragment != "" {
		fault("REDIS_URL must not have a part after '?' or '#': use the other settings")
	}
	password, hasPassword := u.User.Password()
	for _, s := range []struct {
		name       string
		url, field bool
	}{
		{"REDIS_USERNAME", u.User.Username() != "", c.Username != ""},
		{"REDIS_PASSWORD", hasPassword, c.Password != ""},
		{"REDIS_DB", strings.Trim(u.Path, "/") != "", c.DB != 0},
	} {
		if s.url && s.field {
			fault("%s contradicts REDIS_URL, which has one too", s.name)
		}
	}
	if c.TLS != nil && u.Scheme == "redis" {
		fault("REDIS_TLS contradicts REDIS_URL: use rediss://")
	}
	if c.TLS == nil && u.Scheme == "rediss" {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	c.Host, c.Port = cmp.Or(u.Hostname(), "127.0.0.1"), 6379
	if p := u.Port(); p != "" {
		if c.Port, err = strconv.Atoi(p); err != nil || c.Port < 1 || c.Port > 65535 {
			fault("REDIS_URL has a bad port: it must be 1 to 65535")
		}
	}
	c.Username = cmp.Or(c.Username, u.User.Username())
	c.Password = cmp.Or(c.Password, password)
	if db := strings.Trim(u.Path, "/"); db != "" {
		if c.DB, err = strconv.Atoi(db); err != nil {
			fault("REDIS_URL has a bad database: it must be a number after the last '/'")
		}
	}
	c.URL = ""
}

func checkNodes(name string, nodes []Node, fault func(string, ...any)) {
	for i, n := range nodes {
		if n.Host == "" || strings.ContainsAny(n.Host, " /@") {
			fault("%s: host of entry %d must be a host name or an IP address", name, i)
		}
		if n.Port < 1 || n.Port > 65535 {
			fault("%s: port of entry %d is %d: it must be 1 to 65535", name, i, n.Port)
		}
	}
}

func notInPrefix(r rune) bool { return r <= ' ' || r > '~' || r == '{' || r == '}' }
