// Package httpapi is the edge of dray: the chi router, the WebSocket, REST, who is calling,
// and how an error reaches the wire. Domain packages below it never see a request or a frame.
package httpapi

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray"
	"dray/realtime/claim"
	"dray/realtime/inventory"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn"
)

// Config configures a Server. Locations and Hub are required.
type Config struct {
	Locations *location.Store
	Hub       *watch.Hub
	Stock     *inventory.Store  // nil serves no stock and no reservations
	LiveStock *inventory.Hub    // nil serves no subscriptions of stock
	Claims    *claim.Store      // nil: claims are not_found
	Redis     *redisconn.Client // asked by the health probes; nil leaves it out of them
	Version   string            // shown by /health/live and in the documents

	// AllowedOrigins are the sites, besides the server's own, whose pages may open the
	// WebSocket and call REST: hosts ("maps.example.com", "*.example.com") or scheme and host
	// ("https://maps.example.com"). A request without an Origin is no browser's and passes.
	AllowedOrigins []string

	// AllowedHosts are the names, besides those of this machine and of AllowedOrigins, that a
	// request to a loopback address may have as its Host ("dray.internal", "*.example.com"),
	// without port: what a proxy in front sends. Any other is refused 403, for it comes of a
	// page whose site had its name resolve to this machine (DNS rebinding).
	AllowedHosts []string

	// Heartbeat is the longest a connection goes without a ping or other traffic in both
	// directions. Zero means 15 seconds.
	Heartbeat time.Duration
	// StallAfter is how long a client may take nothing, or answer no ping, before it is
	// closed as too slow (4008). Zero means 30 seconds.
	StallAfter time.Duration

	MaxMessageBytes  int // of one WebSocket message; more closes 1009. Zero means 256 KiB
	MaxBodyBytes     int // of one REST body; more is too_large. Zero means 1 MiB
	MaxSubscriptions int // of one connection. Zero means 100
	MaxConnections   int // WebSockets at once; more are refused 503. Zero means 10 000

	// MaxConnectionsPerIP is how many WebSockets one address may have at once, or one /64 of IPv6;
	// more are refused 429. A loopback address has no such limit, for a proxy may be behind it.
	// Zero means 1 000; negative sets no limit.
	MaxConnectionsPerIP int

	// MaxRememberedBytes is what all connections together may remember of the attributes that
	// their drivers sent last. Above it each keeps those of the last 16 KiB or so. Zero means
	// 256 MiB.
	MaxRememberedBytes int

	// MessagesPerSecond is how many messages a connection may send in the long run, and
	// MessageBurst how many at once; a message over 16 KiB counts once for each 16 KiB. Over
	// that it is read more slowly; when that goes on, refused (rate_limited); when it keeps
	// sending all the same, closed (4029). Zero means 2 000 with a burst of twice
	// the rate; negative sets no limit.
	MessagesPerSecond int
	MessageBurst      int

	// MaxOutstanding is how many positions of one connection may be on their way to Redis;
	// at the bound its socket is not read. Zero means 4 096; it is never below dray.MaxPositions.
	MaxOutstanding int

	// RequestTimeout bounds a question to the domain (subscribe, nearby, REST); then it is
	// unavailable. Zero means 5 seconds.
	RequestTimeout time.Duration

	Metrics *prometheus.Registry // served at /metrics; nil means one of its own
	Logger  *slog.Logger         // nil: slog.Default()
	Now     func() time.Time     // nil: time.Now
}

func (c Config) withDefaults() Config {
	def := func(n *int, d int) {
		if *n == 0 {
			*n = d
		}
	}
	span := func(t *time.Duration, d time.Duration) {
		if *t == 0 {
			*t = d
		}
	}
	span(&c.Heartbeat, 15*time.Second)
	span(&c.StallAfter, 30*time.Second)
	span(&c.RequestTimeout, 5*time.Second)
	def(&c.MaxMessageBytes, 256<<10)
	def(&c.MaxBodyBytes, 1<<20)
	def(&c.MaxSubscriptions, 100)
	def(&c.MaxConnections, 10_000)
	def(&c.MaxConnectionsPerIP, 1000)
	def(&c.MaxRememberedBytes, 256<<20)
	def(&c.MessagesPerSecond, 2000)
	c.MessagesPerSecond = max(c.MessagesPerSecond, 0) // from here on 0 is no limit
	def(&c.MessageBurst, 2*c.MessagesPerSecond)
	def(&c.MaxOutstanding, 4096)
	c.MaxOutstanding = max(c.MaxOutstanding, dray.MaxPositions)
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// What the Server asks of the floors below, so that its tests can stand in for them.
type (
	locations interface {
		Submit(ctx context.Context, positions []dray.Position, r location.Receiver, first uint64) error
		Report(ctx context.Context, positions []dray.Position) ([]location.Result, error)
		Offline(ctx context.Context, driver string) error
		Last(ctx context.Context, driver string) (dray.Driver, bool, error)
		Trail(ctx context.Context, driver string, from, to time.Time, limit int) ([]dray.Driver, error)
	}
	stock interface {
		Get(ctx context.Context, location, sku string) (dray.Stock, error)
		Set(ctx context.Context, location, sku string, set inventory.Set, o inventory.Options) (dray.Stock, error)
		Adjust(ctx context.Context, location, sku string, delta int64, reason string, o inventory.Options) (dray.Stock, error)
		List(ctx context.Context, location, cursor string, limit int) ([]dray.Stock, string, error)
		Ledger(ctx context.Context, location, sku, cursor string, limit int) ([]dray.LedgerEntry, string, error)
		Reserve(ctx context.Context, location string, items []dray.Item, ttl time.Duration, o inventory.Options) (dray.Reservation, error)
		ReserveNear(ctx context.Context, center dray.Point, radius float64, items []dray.Item, ttl time.Duration, o inventory.Options) (dray.Reservation, error)
		Reservation(ctx context.Context, reservation string, o inventory.Options) (dray.Reservation, error)
		Commit(ctx context.Context, reservation string, items []dray.Item, o inventory.Options) (dray.Reservation, error)
		Release(ctx context.Context, reservation string, items []dray.Item, o inventory.Options) (dray.Reservation, error)
		Extend(ctx context.Context, reservation string, ttl time.Duration, o inventory.Options) (dray.Reservation, error)
		ReservationLedger(ctx context.Context, reservation, cursor string, limit int) ([]dray.LedgerEntry, string, error)
		PutLocation(ctx context.Context, location string, at dray.Point) error
		DeleteLocation(ctx context.Context, location string) error
	}
	hub interface {
		Nearby(ctx context.Context, center dray.Point, radius float64, limit int, filter dray.Filter) ([]watch.Hit, error)
		Subscribe(ctx context.Context, shape dray.Shape, filter dray.Filter, o watch.Options) (subscription, error)
		Ready() error
	}
	subscription interface {
		Next(c *difference) bool
		Update(ctx context.Context, shape *dray.Shape, filter *dray.Filter, accepted func()) error
		Close()
	}
)

// theHub is a watch.Hub as hub.
type theHub struct{ *watch.Hub }

func (h theHub) Subscribe(ctx context.Context, shape dray.Shape, filter dray.Filter, o watch.Options) (subscription, error) {
	sub, err := h.Hub.Subscribe(ctx, shape, filter, o)
	if err != nil {
		return nil, err // not sub: a nil *Subscription is no nil subscription
	}
	return driverSub{sub}, nil
}

// A Server speaks the wire contract. Make it with New, serve its Handler, end it with
// Shutdown. Safe for concurrent use.
type Server struct {
	cfg       Config
	locations locations
	hub       hub
	stock     stock                       // nil where none is kept
	claims    claims                      // nil where there are none
	ping      func(context.Context) error // Redis; nil where none was given
	log       *slog.Logger
	m         *metrics
	router    http.Handler

	outages, accepts seldom // log lines that would come with every probe, every Accept

	draining atomic.Bool
	stop     chan struct{} // closed when the sweep is to end
	stopOnce sync.Once
	swept    chan struct{}  // closed when it has
	serving  sync.WaitGroup // one for each connection

	buffers sync.Pool // of *[]byte, for messages and bodies
	writes  sync.Pool // of *writeBuffer
	large   sync.Pool // of *[]byte that large answers have left

	remembered budget // of the attributes that connections remember

	mu      sync.Mutex // guards the fields below
	conns   map[*conn]struct{}
	taken   int                  // places of conns given out, those in their handshake included
	callers map[netip.Prefix]int // address -> how many of them are its own
}

// New makes a Server and starts the one goroutine that watches over all its connections;
// Shutdown ends it.
func New(cfg Config) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg:       cfg,
		locations: cfg.Locations,
		hub:       theHub{cfg.Hub},
		log:       cfg.Logger,
		stop:      make(chan struct{}),
		swept:     make(chan struct{}),
		conns:     map[*conn]struct{}{},
		callers:   map[netip.Prefix]int{},
	}
	s.m = newMetrics(cfg.Metrics, &s.remembered)
	s.remembered.most = int64(cfg.MaxRememberedBytes)
	s.buffers.New = func() any { b := make([]byte, 0, firstBuffer); return &b }
	s.writes.New = func() any { return new(writeBuffer) }
	if cfg.Stock != nil {
		s.stock = cfg.Stock
	}
	if cfg.Claims != nil {
		s.claims = cfg.Claims
	}
	if cfg.Redis != nil {
		s.ping = func(ctx context.Context) error { return cfg.Redis.Redis().Ping(ctx).Err() }
	}
	s.router = s.routes()
	if files, ok := openFiles(); ok && files < uint64(cfg.MaxConnections)+spareFiles {
		s.log.Warn("fewer files may be open than connections are allowed: raise the limit (ulimit -n), or lower MaxConnections",
			"files", files, "connections", cfg.MaxConnections)
	}
	go s.sweep()
	return s
}

// Handler serves the whole contract.
func (s *Server) Handler() http.Handler { return s.router }

// HTTPServer is an http.Server for Handler that cuts whoever stalls: headers within 5
// seconds and 16 KiB, a body within 30 seconds, a silent keep-alive after 30 seconds. A WebSocket
// leaves these limits behind with its handshake.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s.router,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(serverLog{s}, "", 0),
	}
}

// CheckListen refuses an address that others than this machine can reach, for there is no
// authentication yet that would keep them out.
func CheckListen(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen address %q: %w", addr, err)
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	return fmt.Errorf("listen address %q can be reached from other machines, and there is no authentication: "+
		"listen on 127.0.0.1:<port> or [::1]:<port>, behind a proxy that knows its callers", addr)
}
