package inventory

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"dray"
	"dray/redisconn/redistest"
)

// BenchmarkCall is what a call of apply.lua costs Redis by the number of its holds, all of one
// SKU or each of another.
func BenchmarkCall(b *testing.B) {
	server := redistest.Start(b, "--save", "", "--appendonly", "no")
	client := redistest.Open(b, server.Config())
	s, err := New(b.Context(), Config{Redis: client})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	for i := range 1000 { // more than Redis keeps in a listpack
		if _, err := s.Set(b.Context(), "shop", fmt.Sprint("sku-", i), Set{Quantity: 1e9}, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	q := newQueue(s, lane{location: "shop"})
	for _, n := range []int{1, 32, 256} {
		for _, skus := range slices.Compact([]int{1, n}) {
			b.Run(fmt.Sprintf("holds=%d/skus=%d", n, skus), func(b *testing.B) {
				before := redistest.CPU(b, client)
				for b.Loop() {
					batch := make([]*op, n)
					for i := range batch {
						batch[i] = &op{kind: 'h', id: newReservation("shop"), ttl: time.Hour, items: []dray.Item{{SKU: fmt.Sprint("sku-", i%skus), Quantity: 1}}, ref: ref{by: "*"}}
					}
					if _, err := q.run(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
				used := float64((redistest.CPU(b, client) - before).Microseconds())
				b.ReportMetric(used/float64(b.N), "us-redis/call")
				b.ReportMetric(used/float64(b.N*n), "us-redis/hold")
				client.Redis().Del(b.Context(), s.keys.holds("shop"))
			})
		}
	}
}
