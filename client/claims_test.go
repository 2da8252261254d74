package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/client"
)

func TestClaimsAgainstTheServer(t *testing.T) {
	ctx := testContext(t)
	url, stop, err := node(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	config := client.Config{URL: url, Logger: quiet()}
	strict(t)(&config)
	c, err := client.Dial(ctx, config)
	if err != nil {
		t.Fatalf("Dial() = %v", err)
	}
	defer c.Close()
	circle := dray.Circle{Latitude: 30.25, Longitude: -97.75, Radius: 1000}
	place, err := c.Subscribe(ctx, dray.Shape{Nearby: &circle}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	byID, err := c.Subscribe(ctx, dray.Shape{Drivers: []string{"d1"}}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	next(t, place)
	next(t, byID)
	if err := c.Report(ctx, at("d1", time.Now().UnixMilli())); err != nil {
		t.Fatal(err)
	}
	next(t, place)
	next(t, byID)

	r := dray.ClaimRequest{Circle: circle, TTL: time.Minute, Filter: dray.Filter{"status": {"free"}}}
	if _, err := c.Claim(ctx, r); !errors.Is(err, dray.ErrNoneAvailable) {
		t.Errorf("Claim() of the free = %v, want ErrNoneAvailable", err)
	}
	r.Filter = nil
	r.Key = "ride 7"
	claim, err := c.Claim(ctx, r)
	if err != nil || len(claim.Drivers) != 1 || claim.Drivers[0].Driver != "d1" || claim.Drivers[0].Distance != 0 || time.Until(claim.ExpiresAt) > time.Minute+5*time.Second {
		t.Fatalf("Claim() = %+v, %v, want d1 for a minute", claim, err)
	}
	if e := next(t, place); len(e.Left) != 1 || e.Left[0].Reason != dray.LeftClaimed {
		t.Errorf("who watches the place hears %s, want that d1 was claimed", show(e))
	}
	if e := next(t, byID); len(e.Moved) != 1 || !e.Moved[0].Claimed {
		t.Errorf("who watches d1 hears %s, want it claimed", show(e))
	}
	if again, err := c.Claim(ctx, r); err != nil || again.ID != claim.ID {
		t.Errorf("Claim() again = %+v, %v, want %s", again, err, claim.ID)
	}
	r.Count = 2
	if _, err := c.Claim(ctx, r); !errors.Is(err, dray.ErrIdempotencyMismatch) {
		t.Errorf("Claim() of two with that key = %v, want ErrIdempotencyMismatch", err)
	}
	r.TTL = 0
	if _, err := c.Claim(ctx, r); !errors.Is(err, dray.ErrBadRequest) {
		t.Errorf("Claim() for no time = %v, want ErrBadRequest", err)
	}
	if err := c.Unclaim(ctx, claim.ID); err != nil {
		t.Errorf("Unclaim() = %v", err)
	}
	if e := next(t, place); len(e.Entered) != 1 {
		t.Errorf("who watches the place hears %s, want d1 again", show(e))
	}
	if err := c.Unclaim(ctx, claim.ID); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Unclaim() again = %v, want ErrNotFound", err)
	}
	if err := c.Unclaim(ctx, strings.Repeat("x", 300)); !errors.Is(err, dray.ErrBadRequest) {
		t.Errorf("Unclaim() of no id = %v, want ErrBadRequest", err)
	}
}

// A claim whose answer is lost with the connection is asked for again with the same key.
func TestAClaimIsSentAgainWithItsKey(t *testing.T) {
	keys := make(chan string, 2)
	f := newFake(t, func(p *peer) {
		keys <- p.hear("claim").Key
		p.drop()
	}, func(p *peer) {
		m := p.hear("claim")
		keys <- m.Key
		p.say(`{"type":"result","id":%s,"claim":{"claim":"C","drivers":[%s],"expiresAt":1700000000000}}`, m.ID, driver("d1", 1))
		p.linger()
	})
	c := dial(t, f)
	claim, err := c.Claim(testContext(t), dray.ClaimRequest{Circle: dray.Circle{Radius: 1}, TTL: time.Second})
	if err != nil || claim.ID != "C" || len(claim.Drivers) != 1 || claim.ExpiresAt.UnixMilli() != 1700000000000 {
		t.Errorf("Claim() = %+v, %v, want C", claim, err)
	}
	if first, again := <-keys, <-keys; first == "" || first != again {
		t.Errorf("it was sent with the keys %q and %q, want one twice", first, again)
	}
}
