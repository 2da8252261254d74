package watch_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/realtime/claim"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn/redistest"
)

// claim holds the one driver in the city that is named so in its attributes, for ttl.
func (n node) claim(t *testing.T, want string, ttl time.Duration) string {
	t.Helper()
	c, err := n.claims.Claim(t.Context(), "", dray.ClaimRequest{Circle: *city.Nearby, Filter: dray.Filter{"name": {want}}, TTL: ttl})
	if err != nil || c.Drivers[0].Driver != want {
		t.Fatalf("Claim() = %+v, %v, want %s", c, err, want)
	}
	return c.ID
}

// named is a driver with its name as an attribute, some metres north of here.
func named(id string, metres float64) dray.Position {
	p := dray.NewPosition(id, here)
	p.Latitude += metres / 111_195
	p.Attributes = map[string]string{"name": id}
	return p
}

// near waits until a nearby question is answered with just these drivers.
func (n node) near(t *testing.T, want ...string) {
	t.Helper()
	settle(t, fmt.Sprint("nearby shows ", want), func() string {
		hits, err := n.hub.Nearby(t.Context(), here, 5000, 100, nil)
		var got []string
		for _, hit := range hits {
			d, _ := hit.Driver()
			got = append(got, d.Driver)
		}
		if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
			return fmt.Sprint(got, err)
		}
		return ""
	})
}

// A feedOf tells the changes of a subscription, each in one line.
func (n node) feedOf(t *testing.T, shape dray.Shape) (next func() string) {
	t.Helper()
	due := make(chan struct{}, 1)
	s, err := n.hub.Subscribe(t.Context(), shape, nil, watch.Options{Due: func() { due <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return func() string {
		t.Helper()
		var c watch.Change
		for {
			select {
			case <-due:
			case <-time.After(10 * time.Second):
				t.Fatal("nothing came")
			}
			if s.Next(&c) {
				break
			}
		}
		var line []string
		for sign, list := range map[string][][]byte{"+": c.Entered, "~": c.Moved} {
			for _, text := range list {
				var d dray.Driver
				if err := d.UnmarshalJSON(text); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				line = append(line, fmt.Sprint(sign, d.Driver, map[bool]string{true: "!"}[d.Claimed]))
			}
		}
		for _, l := range c.Left {
			line = append(line, fmt.Sprint("-", l.Driver, ":", l.Reason))
		}
		return strings.Join(line, " ")
	}
}

func TestWhatWatchersAreToldOfAClaim(t *testing.T) {
	a, b := pair(t, redistest.Single(t), 0)
	a.report(t, named("d", 0))
	b.near(t, "d")
	place, ids := b.feedOf(t, city), b.feedOf(t, dray.Shape{Drivers: []string{"d"}})
	expect := func(when, wantPlace, wantIDs string) {
		t.Helper()
		if got := ids(); got != wantIDs {
			t.Errorf("%s: who watches by id hears %q, want %q", when, got, wantIDs)
		}
		if wantPlace == "" {
			return
		}
		if got := place(); got != wantPlace {
			t.Errorf("%s: who watches the place hears %q, want %q", when, got, wantPlace)
		}
	}
	expect("at first", "+d", "+d")
	id := a.claim(t, "d", time.Hour)
	expect("claimed", "-d:claimed", "~d!")
	a.report(t, named("d", 100))
	expect("it moves meanwhile", "", "~d!")
	late := b.feedOf(t, dray.Shape{Drivers: []string{"d"}})
	if got := late(); got != "+d!" {
		t.Errorf("who comes later by id hears %q, want +d!", got)
	}
	if got := b.feedOf(t, city)(); got != "" {
		t.Errorf("who comes later by place hears %q, want nobody", got)
	}
	if err := a.claims.Unclaim(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	expect("given back", "+d", "~d")
	a.claim(t, "d", 2*time.Second)
	expect("claimed for two seconds", "-d:claimed", "~d!")
	expect("two seconds later", "+d", "~d")
	a.claim(t, "d", time.Hour)
	expect("claimed once more", "-d:claimed", "~d!")
	if err := a.store.Offline(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	expect("it goes offline while it is held", "", "-d:offline")
	a.report(t, named("d", 0))
	expect("and comes back", "", "+d!")
	a.report(t, named("e", 0))
	if got := place(); got != "+e" {
		t.Errorf("who watches the place hears %q, want e alone", got)
	}
}

// While a node's feed is cut drivers are claimed and given back: when it is back it knows.
func TestClaimsHealAfterACut(t *testing.T) {
	server := redistest.Start(t)
	a, b := pair(t, server, 0)
	a.report(t, named("d1", 0), named("d2", 100))
	w := b.watch(t, "w", city, nil, 0)
	defer w.close()
	ids := b.watch(t, "ids", dray.Shape{Drivers: []string{"d1"}}, nil, 0)
	defer ids.close()
	w.holds(t, "d1", "d2")
	for range 5 {
		server.Do(t, "client", "kill", "type", "pubsub")
		id := a.claim(t, "d1", time.Hour)
		w.holds(t, "d2")
		b.near(t, "d2")
		ids.holds(t, "d1")
		server.Do(t, "client", "kill", "type", "pubsub")
		if err := a.claims.Unclaim(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.holds(t, "d1", "d2")
	}
}

// A message that is lost is found by the gap in the numbers.
func TestAGapInTheClaimsIsReadAgain(t *testing.T) {
	server := redistest.Single(t)
	config := server.Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb := redistest.Open(t, config)
	a, b := newNode(t, rdb, 0), newNode(t, redistest.Open(t, config), 0)
	a.report(t, named("d1", 0), named("d2", 100))
	b.near(t, "d1", "d2")
	a.claim(t, "d1", time.Hour)
	b.near(t, "d2")
	key := config.KeyPrefix + "{" + rdb.Tag(claim.Partition) + "}:claims"
	server.Do(t, "hdel", key, "d1") // which nobody tells
	server.Do(t, "hincrby", key, "#", 1)
	a.claim(t, "d2", time.Hour)
	b.near(t, "d1")
}

// A node with no room for copies asks Redis, and so does not show who is held.
func TestNearbyWithoutRoomHidesTheClaimed(t *testing.T) {
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	a := newNode(t, redistest.Open(t, config), 0)
	rdb := redistest.Open(t, config)
	store := location.New(location.Config{Redis: rdb})
	hub := watch.New(watch.Config{Redis: rdb, Locations: store, MaxBuckets: 1})
	defer func() {
		hub.Close()
		_ = store.Close(context.Background())
	}()
	small := node{store, hub, claim.New(claim.Config{Redis: rdb, Near: hub})}
	var fleet []dray.Position
	for i := range 9 {
		fleet = append(fleet, named(fmt.Sprint("d", i), float64(10*i)))
	}
	a.report(t, fleet...)
	a.near(t, "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8")
	a.claim(t, "d0", time.Hour)
	hits, err := hub.Nearby(t.Context(), here, 40_000, 2, nil)
	if err != nil || len(hits) != 2 {
		t.Fatalf("Nearby() = %v, %v, want two", hits, err)
	}
	for i, want := range []string{"d1", "d2"} {
		if d, err := hits[i].Driver(); err != nil || d.Driver != want {
			t.Errorf("hit %d is %+v, %v, want %s", i, d, err, want)
		}
	}
	c, err := small.claims.Claim(t.Context(), "", dray.ClaimRequest{Circle: dray.Circle{Latitude: here.Latitude, Longitude: here.Longitude, Radius: 40_000}, Count: 20, TTL: time.Hour})
	if err != nil || len(c.Drivers) != 8 || c.Drivers[0].Driver != "d1" {
		t.Errorf("Claim(20) = %+v, %v, want the other eight", c, err)
	}
	a.near(t)
}
