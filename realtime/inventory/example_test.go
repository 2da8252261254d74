package inventory_test

import (
	"context"
	"fmt"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
)

// exampleStore is a Store on an embedded Redis, with a little stock.
func exampleStore() (s *inventory.Store, stop func()) {
	ctx := context.Background()
	client, err := redisconn.Open(ctx, redisconn.ForDevelopment())
	if err != nil {
		panic(err)
	}
	if s, err = inventory.New(ctx, inventory.Config{Redis: client}); err != nil {
		panic(err)
	}
	if _, err := s.Set(ctx, "shop", "milk", inventory.Set{Quantity: 10}, inventory.Options{}); err != nil {
		panic(err)
	}
	if _, err := s.Adjust(ctx, "shop", "milk", 2, "delivery", inventory.Options{}); err != nil {
		panic(err)
	}
	return s, func() {
		_ = s.Close(ctx)
		_ = client.Close()
	}
}

func Example() {
	s, stop := exampleStore()
	defer stop()
	ctx := context.Background()
	cart := []dray.Item{{SKU: "milk", Quantity: 3}}
	order := inventory.Options{Key: "order-17"} // a retry with the same key never reserves twice
	r, err := s.Reserve(ctx, "shop", cart, 10*time.Minute, order)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Status, r.Items[0].Quantity)
	r, err = s.Commit(ctx, r.Reservation, nil, inventory.Options{})
	fmt.Println(r.Status, err)
	stock, err := s.Get(ctx, "shop", "milk")
	fmt.Println(stock.Quantity, stock.Available, err)
	// Output:
	// held 3
	// committed <nil>
	// 9 9 <nil>
}
