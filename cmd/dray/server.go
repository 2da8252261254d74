package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"dray/httpapi"
	"dray/realtime/claim"
	"dray/realtime/inventory"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn"
)

// A server is one running node: Redis, positions, watchers, stock and the edge.
type server struct {
	app   *app
	drain time.Duration

	listener  net.Listener
	redis     *redisconn.Client
	locations *location.Store
	hub       *watch.Hub
	stock     *inventory.Store // nil when it is off
	liveStock *inventory.Hub   // likewise
	api       *httpapi.Server
	http      *http.Server
	served    chan error // what http.Serve returned
}

// start opens everything that flags name and serves on address.
func (a *app) start(address string, flags *serverFlags) (*server, error) {
	if err := httpapi.CheckListen(address); err != nil {
		return nil, usagef("--listen (DRAY_LISTEN): %w", err)
	}
	config, err := a.redisConfig(flags.RedisURL)
	if err != nil {
		return nil, usageError{err}
	}
	config.Logger = a.log
	listener, err := listen(a.ctx, address)
	if err != nil {
		return nil, err
	}
	opening, cancel := context.WithTimeout(a.ctx, 10*time.Second)
	defer cancel()
	redis, err := redisconn.Open(opening, config)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("%w (which Redis is said by --redis-url or the REDIS_… variables)", err)
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s := &server{app: a, drain: flags.Drain, listener: listener, redis: redis, served: make(chan error, 1)}
	if s.stock, err = a.openStock(opening, redis, flags, metrics); err != nil {
		return nil, errors.Join(err, redis.Close(), listener.Close())
	}
	s.locations = location.New(location.Config{
		Redis:       redis,
		TTL:         flags.LocationTTL,
		TrailLength: flags.TrailLength,
		TrailAge:    flags.TrailAge,
		Metrics:     metrics,
		Logger:      a.log,
	})
	s.hub = watch.New(watch.Config{Redis: redis, Locations: s.locations, MaxBuckets: flags.MaxBuckets, Metrics: metrics, Logger: a.log})
	if s.stock != nil {
		s.liveStock = inventory.NewHub(inventory.HubConfig{Redis: redis, Metrics: metrics, Logger: a.log})
	}
	claims := claim.New(claim.Config{Redis: redis, Near: s.hub, Metrics: metrics})
	s.api = httpapi.New(httpapi.Config{
		Locations:           s.locations,
		Hub:                 s.hub,
		Stock:               s.stock,
		LiveStock:           s.liveStock,
		Claims:              claims,
		Redis:               redis,
		Version:             version(),
		AllowedOrigins:      flags.AllowedOrigins,
		AllowedHosts:        flags.AllowedHosts,
		MaxConnections:      flags.MaxConnections,
		MaxConnectionsPerIP: flags.MaxPerIP,
		MaxMessageBytes:     flags.MaxMessage,
		MessagesPerSecond:   flags.MessageRate,
		Metrics:             metrics,
		Logger:              a.log,
	})
	s.http = s.api.HTTPServer()
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// openStock is nil when the inventory is off.
func (a *app) openStock(ctx context.Context, redis *redisconn.Client, flags *serverFlags, metrics prometheus.Registerer) (*inventory.Store, error) {
	if flags.Inventory == "off" {
		return nil, nil
	}
	stock, err := inventory.New(ctx, inventory.Config{
		Redis:        redis,
		Replicas:     flags.InventoryReplicas,
		WaitTimeout:  flags.InventoryWait,
		LedgerLength: flags.LedgerLength,
		LedgerAge:    flags.LedgerAge,
		Metrics:      metrics,
		Logger:       a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("%w (--inventory off, or DRAY_INVENTORY=off, serves positions without stock)", err)
	}
	return stock, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another program listens on %s already (a dray, perhaps): choose another port with --listen or DRAY_LISTEN", address)
	}
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return nil, usagef("--listen (DRAY_LISTEN) %s: %w", address, err)
	}
	if err != nil {
		return nil, fmt.Errorf("--listen (DRAY_LISTEN) %s: %w", address, err)
	}
	return l, nil
}

// redisConfig reads the REDIS_… variables. A URL given as a flag replaces those of them
// that name a server.
func (a *app) redisConfig(url string) (redisconn.Config, error) {
	lookup := a.lookup
	if url != "" {
		lookup = func(name string) (string, bool) {
			switch {
			case name == "REDIS_URL":
				return url, true
			case name == "REDIS_HOST", name == "REDIS_PORT", name == "REDIS_CLUSTER_NODES", strings.HasPrefix(name, "REDIS_SENTINEL"):
				return "", false
			}
			return a.lookup(name)
		}
	}
	return redisconn.FromLookup(lookup)
}

// wait returns when ctx ends, or with an error when the server stops by itself.
func (s *server) wait(ctx context.Context) error {
	select {
	case err := <-s.served:
		return errors.Join(fmt.Errorf("serve %s: %w", s.listener.Addr(), err), s.close(context.Background()))
	case <-ctx.Done():
		return nil
	}
}

// stop drains: no new connections, goodbye to those there are, everything taken is stored.
func (s *server) stop() error {
	s.app.log.Info("stopping", "within", s.drain)
	ctx, cancel := context.WithTimeout(context.Background(), s.drain)
	defer cancel()
	// Shutdown stops to listen first, then waits for requests; WebSockets are not its.
	stopped := make(chan error, 1)
	go func() { stopped <- s.http.Shutdown(ctx) }()
	err := s.api.Shutdown(ctx)
	err = errors.Join(err, <-stopped)
	<-s.served
	if err = errors.Join(err, s.close(ctx)); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// close ends what is below the edge: who watches first, and Redis last.
func (s *server) close(ctx context.Context) error {
	s.hub.Close()
	var err error
	if s.stock != nil {
		s.liveStock.Close()
		err = s.stock.Close(ctx)
	}
	return errors.Join(err, s.locations.Close(ctx), s.redis.Close())
}

func (s *server) base() string { return "http://" + s.listener.Addr().String() }
func (s *server) ws() string   { return "ws://" + s.listener.Addr().String() + "/v1/ws" }

// where tells where data lives.
func (s *server) where() string {
	if s.redis.Mode() == redisconn.Embedded {
		return "Data lives in this process only: no other node sees it, and it is gone when this one stops. REDIS_URL names a Redis to share."
	}
	return "Data lives in " + s.redis.Describe() + "."
}
