package loadtest_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"dray/httpapi"
	"dray/loadtest"
	"dray/realtime/inventory"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// startDray runs a server in this process until the test ends.
func startDray(t *testing.T) loadtest.Target {
	redis := redistest.Single(t)
	rdb := redistest.Open(t, redis.Config())
	quiet := slog.New(slog.DiscardHandler)
	store := location.New(location.Config{Redis: rdb, Logger: quiet})
	hub := watch.New(watch.Config{Redis: rdb, Locations: store, Logger: quiet})
	stock, err := inventory.New(t.Context(), inventory.Config{Redis: rdb, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	api := httpapi.New(httpapi.Config{Locations: store, Hub: hub, Stock: stock, Redis: rdb, Logger: quiet})
	url := listen(t, api.HTTPServer(), func(ctx context.Context) {
		api.Shutdown(ctx)
		hub.Close()
		if err := errors.Join(stock.Close(ctx), store.Close(ctx)); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return loadtest.Target{Name: "dray", URL: url, Redis: redis.Addr()}
}

// startNaive is startDray for the server it is compared with.
func startNaive(t *testing.T) loadtest.Target {
	redis := redistest.Start(t)
	naive := loadtest.NewNaive(redis.Addr())
	t.Cleanup(func() { naive.Close() })
	url := listen(t, &http.Server{Handler: naive}, func(context.Context) {})
	return loadtest.Target{Name: "naive", URL: url, Redis: redis.Addr(), Tolerance: 1}
}

// listen serves until the test ends, then calls stop.
func listen(t *testing.T, server *http.Server, stop func(context.Context)) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stop(ctx)
		server.Close()
		<-served
	})
	return "ws://" + l.Addr().String() + "/v1/ws"
}

// tiny is a plan that takes a third of a second.
func tiny(drivers int) loadtest.Plan {
	return loadtest.Plan{Seed: 1, Duration: 300 * time.Millisecond, Drivers: drivers, Spread: 20_000, Check: 1000}
}

func ingestPlan(mode string) *loadtest.IngestPlan {
	return &loadtest.IngestPlan{Plan: tiny(60), Connections: 20, Mode: mode, Batch: 1, Window: 8, Rate: 10}
}

func watchPlan(interval time.Duration) *loadtest.WatchPlan {
	return &loadtest.WatchPlan{Plan: tiny(200), Subscribers: 20, Radius: 4000, Interval: interval, Updates: 1000, Publishers: 4, Frame: 5}
}

func nearbyPlan(http bool) *loadtest.NearbyPlan {
	return &loadtest.NearbyPlan{Plan: tiny(1000), Radius: 3000, Limit: 20, Connections: 4, InFlight: 2, HTTP: http}
}

func TestServersKeepTheirPromises(t *testing.T) {
	batch := ingestPlan("answer")
	batch.Connections, batch.Batch, batch.InFlight = 4, 10, 40
	type run func(ctx context.Context, target loadtest.Target) (*loadtest.Result, error)
	ingest := func(p *loadtest.IngestPlan) run {
		return func(ctx context.Context, target loadtest.Target) (*loadtest.Result, error) {
			return loadtest.Ingest(ctx, target, p)
		}
	}
	look := func(p *loadtest.WatchPlan) run {
		return func(ctx context.Context, target loadtest.Target) (*loadtest.Result, error) {
			return loadtest.Watch(ctx, target, p)
		}
	}
	nearby := func(p *loadtest.NearbyPlan) run {
		return func(ctx context.Context, target loadtest.Target) (*loadtest.Result, error) {
			return loadtest.Nearby(ctx, target, p)
		}
	}
	reserve := func(overHTTP bool) run {
		return func(ctx context.Context, target loadtest.Target) (*loadtest.Result, error) {
			return loadtest.Reserve(ctx, target, &loadtest.ReservePlan{
				Plan: tiny(1), SKUs: 3, Connections: 4, InFlight: 2, HTTP: overHTTP || target.Name == "naive", Keys: overHTTP})
		}
	}
	sale := func(ctx context.Context, target loadtest.Target) (*loadtest.Result, error) {
		return loadtest.FlashSale(ctx, target, &loadtest.SalePlan{Plan: tiny(1), Units: 100, Connections: 8, Repeat: 0.3})
	}
	for _, test := range []struct {
		name string
		run  run
	}{
		{"reservations over the WebSocket", reserve(false)},
		{"reservations over REST", reserve(true)},
		{"a flash sale", sale},
		{"one position and its answer", ingest(ingestPlan("answer"))},
		{"frames of many positions", ingest(batch)},
		{"positions that do not wait", ingest(ingestPlan("stream"))},
		{"positions at a rate", ingest(ingestPlan("rate"))},
		{"watchers that hear at once", look(watchPlan(0))},
		{"watchers with an interval", look(watchPlan(100 * time.Millisecond))},
		{"questions over the WebSocket", nearby(nearbyPlan(false))},
		{"questions over REST", nearby(nearbyPlan(true))},
	} {
		for _, start := range []func(*testing.T) loadtest.Target{startDray, startNaive} {
			target := start(t)
			t.Run(test.name+", "+target.Name, func(t *testing.T) {
				if target.Name == "naive" && (strings.Contains(test.name, "interval") || strings.Contains(test.name, "sale")) {
					t.Skip("the naive server knows no intervals and no commits")
				}
				r, err := test.run(t.Context(), target)
				if err != nil {
					t.Fatalf("run = %v", err)
				}
				if r.Operations == 0 || r.Latency.Count != r.Operations || len(r.Checks) == 0 {
					t.Errorf("run = %d operations, %d of them timed, %d checks, want some, all, some", r.Operations, r.Latency.Count, len(r.Checks))
				}
				for _, c := range r.Checks {
					if c.Failed > 0 || c.Checked == 0 {
						t.Errorf("%s: %d checked, %d failed: %s", c.What, c.Checked, c.Failed, strings.Join(c.Examples, "; "))
					}
				}
				if d := r.Deliveries; d != nil && (d.Due == 0 || d.Delivered == 0) {
					t.Errorf("%d deliveries due, %d made, want some", d.Due, d.Delivered)
				}
			})
		}
	}
}

func TestRedisAlone(t *testing.T) {
	target := loadtest.Target{Name: "redis", Redis: redistest.Start(t).Addr()}
	ingest, err := loadtest.RedisIngest(t.Context(), target, ingestPlan("answer"))
	if err != nil || ingest.Operations == 0 || ingest.RedisCommands["geoadd"] == 0 {
		t.Errorf("RedisIngest = %+v, %v, want operations and their commands", ingest, err)
	}
	nearby, err := loadtest.RedisNearby(t.Context(), target, nearbyPlan(false))
	if err != nil || nearby.Operations == 0 || nearby.RedisCommands["geosearch"] == 0 {
		t.Errorf("RedisNearby = %+v, %v, want operations and their commands", nearby, err)
	}
}

func TestARunEnds(t *testing.T) {
	target := startDray(t)
	t.Run("when its context does", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		p := watchPlan(0)
		p.Duration = time.Minute
		if _, err := loadtest.Watch(ctx, target, p); err == nil {
			t.Error("Watch = nil, want an error")
		}
	})
	t.Run("when nobody is there", func(t *testing.T) {
		gone := target
		gone.URL = "ws://127.0.0.1:1/v1/ws"
		if _, err := loadtest.Ingest(t.Context(), gone, ingestPlan("answer")); err == nil || !strings.Contains(err.Error(), gone.URL) {
			t.Errorf("Ingest = %v, want an error that names the URL", err)
		}
	})
	t.Run("when it is no WebSocket", func(t *testing.T) {
		other := target
		other.URL = strings.Replace(target.URL, "/v1/ws", "/health/live", 1)
		if _, err := loadtest.Nearby(t.Context(), other, nearbyPlan(false)); err == nil || !strings.Contains(err.Error(), "200") {
			t.Errorf("Nearby = %v, want an error with the status", err)
		}
	})
}
