package main

import (
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"dray"
)

type serveCmd struct {
	Listen string `help:"Address and port to listen on. Only loopback, as there is no authentication yet." default:"127.0.0.1:8080" env:"DRAY_LISTEN"`
	serverFlags
}

// serverFlags are the settings of a server but for where it listens.
type serverFlags struct {
	RedisURL          string        `name:"redis-url" help:"redis://[user[:password]@]host[:port][/db], or rediss:// for TLS. Without it the REDIS_… variables say which Redis; with none of them data lives in this process only." placeholder:"URL"`
	LocationTTL       time.Duration `help:"How long a position keeps its driver live: seconds, or a Go duration. The same on every node." default:"60s" env:"LOCATION_TTL"`
	TrailLength       int           `help:"Recent positions kept of each driver; 0 keeps none." default:"0" env:"DRAY_TRAIL_LENGTH"`
	TrailAge          time.Duration `help:"How long they are kept." default:"1h" env:"DRAY_TRAIL_AGE"`
	AllowedOrigins    []string      `help:"Sites whose pages may open the WebSocket, besides the server's own: maps.example.com, *.example.com, https://maps.example.com." env:"DRAY_ALLOWED_ORIGINS" placeholder:"ORIGIN"`
	AllowedHosts      []string      `help:"Names by which a proxy in front may call this server, besides those of this machine." env:"DRAY_ALLOWED_HOSTS" placeholder:"HOST"`
	MaxConnections    int           `help:"WebSockets at once." default:"10000" env:"DRAY_MAX_CONNECTIONS"`
	MaxPerIP          int           `help:"WebSockets at once from one address, or one /64 of IPv6; -1 sets no limit. Loopback has none." default:"1000" env:"DRAY_MAX_CONNECTIONS_PER_IP" name:"max-connections-per-ip"`
	MaxMessage        int           `help:"Bytes of one WebSocket message." default:"262144" env:"DRAY_MAX_MESSAGE_BYTES" name:"max-message-bytes"`
	MessageRate       int           `help:"Messages a second that one connection may send; -1 sets no limit." default:"2000" env:"DRAY_MESSAGES_PER_SECOND" name:"messages-per-second"`
	MaxBuckets        int           `help:"Buckets of 250 km² that this node may hold copies of, for those who watch and ask." default:"8192" env:"DRAY_MAX_BUCKETS"`
	Inventory         string        `help:"Stock and reservations: ${enum}. Off also starts on a Redis that evicts." enum:"on,off" default:"on" env:"DRAY_INVENTORY"`
	InventoryReplicas int           `help:"Replicas of Redis that must have confirmed a change of the stock before it is answered; a request may ask for more." default:"0" env:"DRAY_INVENTORY_REPLICAS"`
	InventoryWait     time.Duration `help:"How long to wait for them; then the answer is durability_not_reached." default:"500ms" env:"DRAY_INVENTORY_WAIT"`
	LedgerLength      int64         `help:"Entries that the ledger of a location keeps; -1 keeps all." default:"1000000" env:"DRAY_LEDGER_LENGTH"`
	LedgerAge         time.Duration `help:"How long it keeps them; 0 sets no time." default:"0" env:"DRAY_LEDGER_AGE"`
	Drain             time.Duration `help:"How long a stopping server waits for what is under way." default:"10s" env:"DRAY_DRAIN"`
}

func (c *serverFlags) Validate() error {
	switch {
	case c.LocationTTL < time.Second:
		return fmt.Errorf("--location-ttl (LOCATION_TTL) must be a second or more")
	case c.TrailLength < 0:
		return fmt.Errorf("--trail-length (DRAY_TRAIL_LENGTH) must be 0 or more")
	case c.TrailAge < time.Second:
		return fmt.Errorf("--trail-age (DRAY_TRAIL_AGE) must be a second or more")
	case c.MaxConnections < 1:
		return fmt.Errorf("--max-connections (DRAY_MAX_CONNECTIONS) must be 1 or more")
	case c.MaxPerIP == 0 || c.MaxPerIP < -1:
		return fmt.Errorf("--max-connections-per-ip (DRAY_MAX_CONNECTIONS_PER_IP) must be 1 or more, or -1")
	case c.MaxMessage < 1024:
		return fmt.Errorf("--max-message-bytes (DRAY_MAX_MESSAGE_BYTES) must be 1024 or more")
	case c.MessageRate == 0 || c.MessageRate < -1:
		return fmt.Errorf("--messages-per-second (DRAY_MESSAGES_PER_SECOND) must be 1 or more, or -1")
	case c.MaxBuckets < 1:
		return fmt.Errorf("--max-buckets (DRAY_MAX_BUCKETS) must be 1 or more")
	case c.InventoryReplicas < 0 || c.InventoryReplicas > dray.MaxReplicas:
		return fmt.Errorf("--inventory-replicas (DRAY_INVENTORY_REPLICAS) must be 0 to %d", dray.MaxReplicas)
	case c.InventoryWait < time.Millisecond || c.InventoryWait > time.Second:
		return fmt.Errorf("--inventory-wait (DRAY_INVENTORY_WAIT) must be 1ms to 1s")
	case c.LedgerLength == 0 || c.LedgerLength < -1:
		return fmt.Errorf("--ledger-length (DRAY_LEDGER_LENGTH) must be 1 or more, or -1")
	case c.Drain <= 0:
		return fmt.Errorf("--drain (DRAY_DRAIN) must be longer than 0")
	}
	for _, origin := range c.AllowedOrigins {
		if err := checkOrigin(origin); err != nil {
			return err
		}
	}
	return nil
}

// checkOrigin refuses what could never match, or could not be read.
func checkOrigin(origin string) error {
	_, host, web := strings.Cut(origin, "://")
	if !web {
		host = origin
	}
	if _, err := path.Match(origin, ""); err != nil || host == "" || strings.ContainsAny(host, "/ ") {
		return fmt.Errorf("--allowed-origins (DRAY_ALLOWED_ORIGINS): %q is neither a host like maps.example.com or *.example.com nor one after https://", origin)
	}
	return nil
}

// Help is shown by dray serve --help.
func (*serveCmd) Help() string {
	return `Ctrl-C (or SIGTERM) drains: clients are told to come back elsewhere, positions that were
taken are stored, and the exit code is 0. A second one quits at once.

Redis is named by --redis-url or by REDIS_URL, or REDIS_HOST and REDIS_PORT, or
REDIS_SENTINELS and REDIS_SENTINEL_NAME, or REDIS_CLUSTER_NODES; with REDIS_USERNAME,
REDIS_PASSWORD, REDIS_DB, REDIS_TLS and REDIS_KEY_PREFIX where needed.`
}

// Run serves until a signal comes.
func (c *serveCmd) Run(a *app) error {
	s, err := a.start(c.Listen, &c.serverFlags)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "dray %s listens on %s (WebSocket: %s)\n%s\nNext: %s\n",
		version(), s.base(), s.ws(), s.where(), watchCommand(s.ws(), ""))
	if err := s.wait(a.ctx); err != nil {
		return err
	}
	return s.stop()
}

// watchCommand is the line that starts a watcher, as this program was started.
func watchCommand(url, shape string) string {
	line := "dray watch"
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "go-build") {
		line = "go run ./cmd/dray watch"
	} else if len(os.Args) > 0 && strings.Contains(os.Args[0], "/") {
		line = os.Args[0] + " watch"
	}
	if url != defaultURL {
		line += " --url " + url
	}
	if shape != "" {
		line += " " + shape
	}
	return line
}
