package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/client"
	"dray/redisconn/redistest"
)

// A node is killed in mid-stream, twice, and comes back on the same port: nothing that was
// reported is lost, and the subscription ends up right.
func TestANodeIsKilledAndComesBack(t *testing.T) {
	env := []string{"REDIS_URL=redis://" + redistest.Single(t).Addr(), "REDIS_KEY_PREFIX=" + redistest.Prefix(t)}
	p := start(t, env, "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
	address := strings.TrimSuffix(strings.TrimPrefix(p.url, "ws://"), "/v1/ws")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, client.Config{
		URL:         p.url,
		Logger:      slog.New(slog.DiscardHandler),
		MaxBackoff:  200 * time.Millisecond,
		Refused:     func(r client.Refusal) { t.Errorf("refused: %+v", r) },
		Strict:      true,
		OnViolation: func(err error) { t.Errorf("violation: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sub, err := c.Subscribe(ctx, dray.Shape{Bounds: &dray.Bounds{South: 30, West: -98, North: 31, East: -97}}, nil, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	const drivers, rounds = 100, 30
	want := map[string]dray.Point{}
	began := time.Now().Truncate(time.Millisecond)
	for round := range rounds {
		for i := range drivers {
			at := dray.NewPosition(fmt.Sprintf("d%d", i), dray.Point{Latitude: 30.2 + float64(i)*0.001, Longitude: -97.9 + float64(round)*0.001})
			at.Timestamp = began.Add(time.Duration(round) * time.Millisecond)
			want[at.Driver] = at.Point()
			if err := c.Report(ctx, at); err != nil {
				t.Fatalf("Report() = %v", err)
			}
			if (round == rounds/3 || round == rounds*2/3) && i == drivers/2 {
				p.signal(t, os.Kill)
				p = start(t, env, "serve", "--listen", address, "--log-level", "error")
			}
		}
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatalf("Flush() = %v", err)
	}
	for {
		got := map[string]dray.Point{}
		for _, d := range sub.Set() {
			got[d.Driver] = d.Point()
		}
		if maps.Equal(got, want) {
			break
		}
		if _, err := sub.Next(ctx); err != nil {
			t.Fatalf("the set is %v, want %v: %v", got, want, err)
		}
	}
	if code := p.signal(t, os.Interrupt); code != 0 {
		t.Errorf("serve ended with %d, want 0", code)
	}
}
