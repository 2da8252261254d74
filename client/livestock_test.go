package client_test

import (
	"context"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/client"
	"dray/httpapi"
	"dray/realtime/inventory"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn"
)

// A shop's stock over the wire, held to what a subscription promises.
func TestLiveStockAgainstTheServer(t *testing.T) {
	ctx := testContext(t)
	redis, err := redisconn.Open(ctx, redisconn.Config{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	store, err := inventory.New(ctx, inventory.Config{Redis: redis, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close(context.Background())
	live := inventory.NewHub(inventory.HubConfig{Redis: redis, Logger: quiet()})
	defer live.Close()
	places := location.New(location.Config{Redis: redis, Logger: quiet()})
	defer places.Close(context.Background())
	hub := watch.New(watch.Config{Redis: redis, Locations: places, Logger: quiet()})
	defer hub.Close()
	api := httpapi.New(httpapi.Config{Locations: places, Hub: hub, Stock: store, LiveStock: live, Redis: redis, Logger: quiet()})
	server := httptest.NewServer(api.Handler())
	defer server.Close()
	defer api.Shutdown(context.Background())

	config := client.Config{URL: "ws" + strings.TrimPrefix(server.URL, "http") + "/v1/ws", Logger: quiet()}
	strict(t)(&config)
	c, err := client.Dial(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	set := func(sku string, n int64) dray.Stock {
		s, err := store.Set(ctx, "shop", sku, inventory.Set{Quantity: n}, inventory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	want := map[string]dray.Stock{"milk": set("milk", 5), "bread": set("bread", 5)}
	sub, err := c.Subscribe(ctx, dray.Shape{Stock: &dray.StockShape{Location: "shop", Low: 2}}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	held, told := map[string]dray.Stock{}, ""
	next := func() client.Event {
		e, err := sub.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e.Snapshot {
			clear(held)
		}
		for _, l := range e.StockLeft {
			delete(held, l.SKU)
		}
		for _, s := range e.Stock {
			held[s.SKU] = s
		}
		for _, x := range e.StockEvents {
			told += fmt.Sprint(x.SKU, " ", x.Event, " ", x.Available, "; ")
		}
		return e
	}
	settle := func(what string) {
		t.Helper()
		for !maps.Equal(held, want) {
			next() // ends with ctx
		}
		rows := map[string]dray.Stock{}
		for _, s := range sub.Stock() {
			rows[s.SKU] = s
		}
		if !maps.Equal(rows, want) {
			t.Errorf("%s: Stock() = %v, want %v", what, rows, want)
		}
	}
	if e := next(); !e.Snapshot || len(e.Stock) != 2 || len(sub.Set()) != 0 {
		t.Fatalf("first event = %+v, want a snapshot of two rows", e)
	}
	settle("snapshot")
	for _, n := range []int64{2, 0, 7} {
		want["milk"] = set("milk", n)
		settle("changes")
	}
	if want := "milk low 2; milk out 0; milk back 7; "; told != want {
		t.Errorf("events %q, want %q", told, want)
	}
	if err := sub.Update(ctx, &dray.Shape{Stock: &dray.StockShape{Location: "shop", SKUs: []string{"milk", "eggs"}}}, nil); err != nil {
		t.Fatal(err)
	}
	delete(want, "bread")
	settle("fewer")
	want["eggs"] = set("eggs", 1)
	settle("a new SKU")
	if err := sub.Update(ctx, &dray.Shape{Drivers: []string{"d"}}, nil); dray.CodeOf(err) != dray.CodeBadRequest {
		t.Errorf("Update to drivers = %v, want bad_request", err)
	}
}

// What a server must not send is told, each once.
func TestLiveStockViolationsAreTold(t *testing.T) {
	row := func(sku string, available, version int) string {
		return fmt.Sprintf(`{"location":"l","sku":"%s","quantity":%d,"reserved":0,"available":%d,"version":%d,"lastUpdated":1}`, sku, available, available, version)
	}
	f := newFake(t, func(p *peer) {
		m := p.hear("subscribe")
		say := func(kind string, version int, rest string) {
			p.say(`{"type":"%s","id":%s,"version":%d,"serverTime":1,%s}`, kind, m.ID, version, rest)
		}
		say("snapshot", 1, `"stock":[`+row("a", 5, 10)+`]`)
		say("delta", 2, `"stock":[`+row("a", 0, 11)+`],"events":[{"sku":"a","event":"out","available":0}]`) // right
		say("delta", 3, `"stock":[`+row("a", 5, 12)+`]`)
		say("delta", 4, `"stock":[`+row("a", 6, 9)+`]`)
		say("delta", 5, `"left":[{"sku":"b","reason":"shape"}]`)
		say("delta", 6, `"stock":[`+row("a", 7, 13)+`],"events":[{"sku":"a","event":"low","available":7}]`)
		say("delta", 6, `"stock":[`+row("a", 8, 14)+`,`+row("a", 8, 14)+`]`)
		say("delta", 7, `"events":[{"sku":"a","event":"low","available":7}]`)
		say("delta", 8, `"stock":[`+row("end", 1, 15)+`]`)
		p.linger()
	})
	violations := make(chan string, 100)
	c := dial(t, f, func(c *client.Config) {
		c.Strict = true
		c.OnViolation = func(err error) { violations <- err.Error() }
	})
	sub, err := c.Subscribe(testContext(t), dray.Shape{Stock: &dray.StockShape{Location: "l"}}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for !slices.ContainsFunc(sub.Stock(), func(s dray.Stock) bool { return s.SKU == "end" }) {
		if _, err := sub.Next(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		"delta 3: a went from 0 to 5 without the event back",
		"delta 4: a is of version 9, after 12",
		"delta 5: b left, which is not held",
		"delta 6: a went from 6 to 7 with the event low of 7",
		"delta 6: version did not grow from 6",
		"delta 6: a stands in it twice",
		"delta 7: is empty",
		"delta 7: a has an event and no row",
	} {
		select {
		case got := <-violations:
			if !strings.HasSuffix(got, want) {
				t.Errorf("violation %q, want ...%q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no violation, want %q", want)
		}
	}
	if len(violations) > 0 {
		t.Errorf("and %q", <-violations)
	}
}
