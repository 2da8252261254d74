package watch_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"dray"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn/redistest"
)

// crowd is n drivers spread over a disc of radius metres around here.
func crowd(rnd *rand.Rand, n int, radius float64) []dray.Position {
	fleet := make([]dray.Position, n)
	for i := range fleet {
		r, a := radius*math.Sqrt(rnd.Float64()), 2*math.Pi*rnd.Float64()
		fleet[i] = dray.NewPosition(fmt.Sprint("driver-", i), dray.Point{
			Latitude:  here.Latitude + r*math.Sin(a)/111_195,
			Longitude: here.Longitude + r*math.Cos(a)/111_195/math.Cos(here.Latitude*math.Pi/180),
		})
	}
	return fleet
}

func benchNode(b *testing.B) node {
	rdb := redistest.Open(b, redistest.Start(b).Config())
	store := location.New(location.Config{Redis: rdb, TTL: time.Hour})
	hub := watch.New(watch.Config{Redis: rdb, Locations: store})
	b.Cleanup(func() {
		hub.Close()
		_ = store.Close(context.Background())
	})
	return node{store: store, hub: hub}
}

func fill(b *testing.B, n node, fleet []dray.Position) {
	for i := 0; i < len(fleet); i += 1000 {
		if _, err := n.store.Report(b.Context(), fleet[i:min(i+1000, len(fleet))]); err != nil {
			b.Fatal(err)
		}
	}
}

// The 50 nearest of 100 000 in 60 km, from the copies.
func BenchmarkNearby(b *testing.B) {
	n := benchNode(b)
	rnd := rand.New(rand.NewPCG(1, 2))
	fill(b, n, crowd(rnd, 100_000, 60_000))
	for _, radius := range []float64{1000, 5000, 50_000} {
		b.Run(fmt.Sprint("radius=", radius), func(b *testing.B) {
			centers := crowd(rnd, 1000, 50_000)
			for i := range centers {
				if _, err := n.hub.Nearby(b.Context(), centers[i].Point(), radius, 50, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := n.hub.Nearby(b.Context(), centers[i%len(centers)].Point(), radius, 50, nil); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// The first question of a node about a city of 200 000 drivers in 30 km, by how much it covers.
func BenchmarkFirstQuestion(b *testing.B) {
	rdb := redistest.Open(b, redistest.Start(b).Config())
	store := location.New(location.Config{Redis: rdb, TTL: time.Hour})
	b.Cleanup(func() { _ = store.Close(context.Background()) })
	fill(b, node{store: store}, crowd(rand.New(rand.NewPCG(1, 2)), 200_000, 15_000))
	for _, radius := range []float64{1000, 15_000} {
		b.Run(fmt.Sprint("radius=", radius), func(b *testing.B) {
			for b.Loop() {
				hub := watch.New(watch.Config{Redis: rdb, Locations: store})
				if _, err := hub.Nearby(b.Context(), here, radius, 50, nil); err != nil {
					b.Fatal(err)
				}
				hub.Close()
			}
		})
	}
}

// What one update costs a node from the feed to the frames of those that watch: 500
// subscriptions of 2 km over 10 000 drivers in 20 km.
func BenchmarkDeliver(b *testing.B) {
	for _, interval := range []time.Duration{0, 50 * time.Millisecond, time.Second} {
		b.Run(fmt.Sprint("interval=", interval), func(b *testing.B) {
			n := benchNode(b)
			rnd := rand.New(rand.NewPCG(1, 2))
			fleet := crowd(rnd, 10_000, 20_000)
			fill(b, n, fleet)
			due := make(chan *watch.Subscription, 1000)
			delivered := 0
			for _, c := range crowd(rnd, 500, 20_000) {
				var s *watch.Subscription
				ready := make(chan struct{})
				s, err := n.hub.Subscribe(b.Context(), dray.Shape{Nearby: &dray.Circle{Latitude: c.Latitude, Longitude: c.Longitude, Radius: 2000}},
					nil, watch.Options{Interval: interval, Due: func() {
						select {
						case <-ready:
							due <- s
						default: // the first, while s is not known yet
							go func() { <-ready; due <- s }()
						}
					}})
				if err != nil {
					b.Fatal(err)
				}
				close(ready)
			}
			done := make(chan struct{})
			go func() {
				var c watch.Change
				for s := range due {
					if s == nil {
						close(done)
						return
					}
					if s.Next(&c) {
						delivered += len(c.Moved) + len(c.Entered)
					}
				}
			}()
			batch := make([]dray.Position, 200)
			at := 0
			b.ResetTimer()
			updates := 0
			for b.Loop() {
				for i := range batch {
					p := &fleet[at%len(fleet)]
					p.Latitude += 1e-5 * float64(at%3-1)
					batch[i] = *p
					at++
				}
				if _, err := n.store.Report(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				updates += len(batch)
			}
			b.StopTimer()
			due <- nil
			<-done
			b.ReportMetric(float64(b.Elapsed())/float64(updates)/1000, "us/update")
			b.ReportMetric(float64(delivered)/float64(updates), "deliveries/update")
			b.ReportMetric(0, "ns/op")
		})
	}
}
