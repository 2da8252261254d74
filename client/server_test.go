package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/client"
	"dray/httpapi"
	"dray/realtime/claim"
	"dray/realtime/inventory"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn"
)

// node is a whole server on an embedded Redis. stop ends it.
func node(ctx context.Context) (url string, stop func(), err error) {
	x := &cutter{}
	stop, err = nodeOn(ctx, redisconn.Config{}, x)
	return x.url, stop, err
}

// nodeOn is a whole server that is reached by way of x.
func nodeOn(ctx context.Context, config redisconn.Config, x *cutter) (stop func(), err error) {
	log := slog.New(slog.DiscardHandler)
	config.Logger = log
	redis, err := redisconn.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	stock, err := inventory.New(ctx, inventory.Config{Redis: redis, Logger: log})
	if err != nil {
		redis.Close()
		return nil, err
	}
	locations := location.New(location.Config{Redis: redis, Logger: log})
	hub := watch.New(watch.Config{Redis: redis, Locations: locations, Logger: log})
	claims := claim.New(claim.Config{Redis: redis, Near: hub})
	api := httpapi.New(httpapi.Config{Locations: locations, Hub: hub, Stock: stock, Claims: claims, Redis: redis, Logger: log})
	server := httptest.NewUnstartedServer(api.Handler())
	x.Listener, server.Listener = server.Listener, x
	server.Start()
	x.url = "ws" + strings.TrimPrefix(server.URL, "http") + "/v1/ws"
	return func() {
		api.Shutdown(context.Background())
		server.Close()
		hub.Close()
		stock.Close(context.Background())
		locations.Close(context.Background())
		redis.Close()
	}, nil
}

func TestAgainstTheServer(t *testing.T) {
	ctx := testContext(t)
	url, stop, err := node(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	config := client.Config{URL: url, Logger: quiet(), Refused: func(r client.Refusal) { t.Errorf("refused: %+v", r) }}
	strict(t)(&config)
	watcher, err := client.Dial(ctx, config)
	if err != nil {
		t.Fatalf("Dial() = %v", err)
	}
	defer watcher.Close()
	reporter, err := client.Dial(ctx, config)
	if err != nil {
		t.Fatalf("Dial() = %v", err)
	}
	defer reporter.Close()

	circle := dray.Circle{Latitude: 30.27, Longitude: -97.74, Radius: 2000}
	sub, err := watcher.Subscribe(ctx, dray.Shape{Nearby: &circle}, dray.Filter{"status": {"free"}}, 50*time.Millisecond)
	if err != nil {
		t.Fatalf("Subscribe() = %v", err)
	}

	// Forty drivers wander; the last position of each says who ought to be in the set.
	r := rand.New(rand.NewPCG(1, 2))
	last := map[string]dray.Position{}
	start := time.Now().Add(-time.Second)
	for i := range 2000 {
		p := dray.NewPosition(fmt.Sprintf("d%02d", r.IntN(40)), dray.Point{
			Latitude:  circle.Latitude + (r.Float64()-0.5)*0.06,
			Longitude: circle.Longitude + (r.Float64()-0.5)*0.06,
		})
		p.Timestamp = start.Add(time.Duration(i) * time.Millisecond / 2)
		p.Attributes = map[string]string{"status": []string{"free", "busy"}[r.IntN(2)]}
		if p.Timestamp.UnixMilli() == last[p.Driver].Timestamp.UnixMilli() {
			continue // would be superseded
		}
		last[p.Driver] = p
		if err := reporter.Report(ctx, p); err != nil {
			t.Fatalf("Report() = %v", err)
		}
	}
	if err := reporter.Offline(ctx, "d00"); err != nil {
		t.Fatalf("Offline() = %v", err)
	}
	delete(last, "d00")
	if err := reporter.Flush(ctx); err != nil {
		t.Fatalf("Flush() = %v", err)
	}
	inside := func(radius float64) (ids []string) {
		for id, p := range last {
			if p.Attributes["status"] == "free" && dray.Distance(p.Point(), circle.Center()) <= radius {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		return ids
	}
	awaitSet(t, sub, inside(circle.Radius))

	circle.Radius = 1000
	if err := sub.Update(ctx, &dray.Shape{Nearby: &circle}, nil); err != nil {
		t.Fatalf("Update() = %v", err)
	}
	awaitSet(t, sub, inside(1000))

	found, err := watcher.Nearby(ctx, circle, 0, dray.Filter{"status": {"free"}})
	if err != nil {
		t.Fatalf("Nearby() = %v", err)
	}
	if !slices.IsSortedFunc(found, func(a, b dray.Driver) int { return int(a.Distance - b.Distance) }) {
		t.Errorf("Nearby() = %v, want the nearest first", found)
	}
	if got := ids(found); !slices.Equal(got, inside(1000)) {
		t.Errorf("Nearby() = %v, want %v", got, inside(1000))
	}

	old := last["d01"]
	result, err := reporter.ReportBatch(ctx, []dray.Position{old, at("d01", time.Now().Add(time.Hour).UnixMilli())})
	if err != nil || result.Superseded != 1 || len(result.Rejected) != 1 || result.Rejected[0].Err.Code != dray.CodeInvalidPosition {
		t.Errorf("ReportBatch() = %+v, %v, want one superseded and one invalid", result, err)
	}
	many := slices.Repeat([]string{"d01"}, dray.MaxDrivers+1)
	if _, err := watcher.Subscribe(ctx, dray.Shape{Drivers: many}, nil, 0); dray.CodeOf(err) != dray.CodeTooLarge {
		t.Errorf("Subscribe() to too many drivers = %v, want %v", err, dray.ErrTooLarge)
	}
	if err := sub.Close(ctx); err != nil {
		t.Errorf("Close() = %v", err)
	}
}

func awaitSet(t *testing.T, sub *client.Subscription, want []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for !slices.Equal(ids(sub.Set()), want) {
		if _, err := sub.Next(ctx); err != nil {
			t.Fatalf("Set() = %v, want %v", ids(sub.Set()), want)
		}
	}
}

func ids(drivers []dray.Driver) (ids []string) {
	for _, d := range drivers {
		ids = append(ids, d.Driver)
	}
	slices.Sort(ids)
	return ids
}
