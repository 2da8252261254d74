package client_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/client"
)

func items(pairs ...any) (list []dray.Item) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, dray.Item{SKU: pairs[i].(string), Quantity: int64(pairs[i+1].(int))})
	}
	return list
}

// setStock sets how many units of a SKU there are at the default location of a node.
func setStock(ctx context.Context, url, sku string, quantity int) error {
	address := strings.Replace(strings.TrimSuffix(url, "/v1/ws"), "ws", "http", 1) + "/v1/stock/default/" + sku
	r, err := http.NewRequestWithContext(ctx, "PUT", address, strings.NewReader(fmt.Sprintf(`{"quantity":%d}`, quantity)))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

const heldReservation = `{"reservation":"default.A","location":"default","status":"held","items":[{"sku":"a","quantity":2,"committed":0,"released":0}],` +
	`"expiresAt":1700000000000,"durability":{"level":"replicated","replicas":1}}`

// An order whose answer is lost with the connection is sent again, with the same key: the
// caller's, or one that the client made.
func TestOrdersAreSentAgainWithTheirKey(t *testing.T) {
	for _, test := range []struct {
		name, kind, key string
		ask             func(context.Context, *client.Client, client.Options) (dray.Reservation, error)
	}{
		{"reserve without a key", "reserve", "", func(ctx context.Context, c *client.Client, o client.Options) (dray.Reservation, error) {
			return c.Reserve(ctx, "", items("a", 2), time.Minute, o)
		}},
		{"reserve with a key", "reserve", "order 1", func(ctx context.Context, c *client.Client, o client.Options) (dray.Reservation, error) {
			return c.Reserve(ctx, "shop", items("a", 2), 0, o)
		}},
		{"reserve near", "reserve", "", func(ctx context.Context, c *client.Client, o client.Options) (dray.Reservation, error) {
			return c.ReserveNear(ctx, dray.Circle{Latitude: 1, Longitude: 2, Radius: 3}, items("a", 2), 0, o)
		}},
		{"commit", "commit", "", func(ctx context.Context, c *client.Client, o client.Options) (dray.Reservation, error) {
			return c.Commit(ctx, "default.A", nil, o)
		}},
		{"release of a part", "release", "k", func(ctx context.Context, c *client.Client, o client.Options) (dray.Reservation, error) {
			return c.Release(ctx, "default.A", items("a", 1), o)
		}},
		{"extend", "extend", "", func(ctx context.Context, c *client.Client, o client.Options) (dray.Reservation, error) {
			return c.Extend(ctx, "default.A", time.Hour, o)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			heard := make(chan message, 2)
			f := newFake(t, func(p *peer) {
				heard <- p.hear(test.kind)
				p.drop()
			}, func(p *peer) {
				m := p.hear(test.kind)
				heard <- m
				p.say(`{"type":"result","id":%s,"reservation":%s}`, m.ID, heldReservation)
				p.linger()
			})
			r, err := test.ask(testContext(t), dial(t, f), client.Options{Key: test.key, Replicas: 1})
			if err != nil || r.Reservation != "default.A" || r.Replicas != 1 || r.ExpiresAt.UnixMilli() != 1700000000000 || !math.IsNaN(r.Distance) {
				t.Fatalf("%s = %+v, %v, want default.A", test.name, r, err)
			}
			first, second := <-heard, <-heard
			if fmt.Sprint(first) != fmt.Sprint(second) || first.Replicas != 1 {
				t.Errorf("the server heard %+v, then %+v, want the same twice", first, second)
			}
			if key := first.Key; test.key != "" && key != test.key || len(key) < 1 {
				t.Errorf("the key is %q, want %q or one that was made", key, test.key)
			}
		})
	}
}

func TestARefusedCartKeepsItsDetails(t *testing.T) {
	f := newFake(t, func(p *peer) {
		m := p.hear("reserve")
		p.say(`{"type":"error","id":%s,"code":"insufficient_stock","message":"not enough stock","retryable":false,"details":[{"sku":"a","requested":2,"available":0}]}`, m.ID)
		p.linger()
	})
	_, err := dial(t, f).Reserve(testContext(t), "", items("a", 2), 0, client.Options{})
	e := dray.AsError(err)
	if !errors.Is(err, dray.ErrInsufficientStock) || len(e.Details) != 1 || e.Details[0].SKU != "a" || *e.Details[0].Requested != 2 || *e.Details[0].Available != 0 {
		t.Errorf("Reserve() = %v with %+v, want insufficient_stock of a", err, e.Details)
	}
}

func TestOrdersThatAreNotSent(t *testing.T) {
	c := dial(t, newFake(t, func(p *peer) { p.linger() }))
	if _, err := c.Reserve(testContext(t), "", items("a", 1), 1500*time.Millisecond, client.Options{}); !errors.Is(err, dray.ErrBadRequest) {
		t.Errorf("Reserve() for 1.5 s = %v, want bad_request", err)
	}
	if _, err := c.ReserveNear(testContext(t), dray.Circle{Latitude: math.NaN(), Radius: 1}, items("a", 1), 0, client.Options{}); !errors.Is(err, dray.ErrBadRequest) {
		t.Errorf("ReserveNear() nowhere = %v, want bad_request", err)
	}
}

func TestStockAgainstTheServer(t *testing.T) {
	ctx := testContext(t)
	url, stop, err := node(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, err := client.Dial(ctx, client.Config{URL: url, Logger: quiet()})
	if err != nil {
		t.Fatalf("Dial() = %v", err)
	}
	defer c.Close()
	if _, err := c.Stock(ctx, "", "apple"); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Stock() of what is not there = %v, want not_found", err)
	}
	if err := setStock(ctx, url, "apple", 5); err != nil {
		t.Fatal(err)
	}
	r, err := c.Reserve(ctx, "", items("apple", 2, "apple", 1), time.Minute, client.Options{Key: "k"})
	if err != nil || r.Status != dray.StatusHeld || r.Items[0].Quantity != 3 {
		t.Fatalf("Reserve() = %+v, %v, want 3 held", r, err)
	}
	if again, err := c.Reserve(ctx, "", items("apple", 3), time.Minute, client.Options{Key: "k"}); err != nil || again.Reservation != r.Reservation {
		t.Errorf("Reserve() again = %+v, %v, want %s", again, err, r.Reservation)
	}
	if _, err := c.Reserve(ctx, "", items("apple", 3), 0, client.Options{}); !errors.Is(err, dray.ErrInsufficientStock) {
		t.Errorf("Reserve() of too much = %v, want insufficient_stock", err)
	}
	if _, err := c.ReserveNear(ctx, dray.Circle{Radius: 100}, items("apple", 1), 0, client.Options{}); !errors.Is(err, dray.ErrInsufficientStock) {
		t.Errorf("ReserveNear() = %v, want insufficient_stock", err)
	}
	if later, err := c.Extend(ctx, r.Reservation, time.Hour, client.Options{}); err != nil || !later.ExpiresAt.After(r.ExpiresAt) {
		t.Errorf("Extend() = %+v, %v, want later than %v", later, err, r.ExpiresAt)
	}
	if part, err := c.Commit(ctx, r.Reservation, items("apple", 1), client.Options{}); err != nil || part.Items[0].Committed != 1 {
		t.Errorf("Commit() = %+v, %v, want 1 committed", part, err)
	}
	if done, err := c.Release(ctx, r.Reservation, nil, client.Options{}); err != nil || done.Status != dray.StatusCommitted {
		t.Errorf("Release() = %+v, %v, want committed", done, err)
	}
	if _, err := c.Commit(ctx, r.Reservation, nil, client.Options{}); dray.CodeOf(err) != dray.CodeAlreadyReleased && dray.CodeOf(err) != dray.CodeAlreadyCommitted {
		t.Errorf("Commit() again = %v, want the code of what ended it", err)
	}
	if s, err := c.Stock(ctx, "", "apple"); err != nil || s.Quantity != 4 || s.Available != 4 {
		t.Errorf("Stock() = %+v, %v, want 4", s, err)
	}
}

func ExampleClient_Reserve() {
	ctx := context.Background()
	url, stop, err := node(ctx) // or ws://127.0.0.1:8080/v1/ws, where dray serve runs
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	if err := setStock(ctx, url, "apple", 10); err != nil { // dray stock set apple 10
		fmt.Println(err)
		return
	}
	c, err := client.Dial(ctx, client.Config{URL: url})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	cart := []dray.Item{{SKU: "apple", Quantity: 3}}
	r, err := c.Reserve(ctx, "", cart, 15*time.Minute, client.Options{Key: "order-4711"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Status)
	if r, err = c.Commit(ctx, r.Reservation, nil, client.Options{}); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Status)
	_, err = c.Reserve(ctx, "", []dray.Item{{SKU: "apple", Quantity: 8}}, 0, client.Options{})
	fmt.Println(errors.Is(err, dray.ErrInsufficientStock), err)
	// Output:
	// held
	// committed
	// true not enough stock: apple: 8 asked for, 7 there
}
