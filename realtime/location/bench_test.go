package location_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"dray"
	"dray/realtime/location"
	"dray/redisconn/redistest"
)

// What a position costs here and in Redis, by how many come at once. 4 096 drivers in a city
// of 20 km.
func BenchmarkReport(b *testing.B) {
	for _, size := range []int{1, 8, 64, 256, 1000} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			config := redistest.Start(b).Config()
			rdb := redistest.Open(b, config)
			s := location.New(location.Config{Redis: rdb})
			defer s.Close(b.Context())
			const drivers = 4096
			rnd := rand.New(rand.NewPCG(1, 1))
			fleet := make([]dray.Position, drivers)
			for i := range fleet {
				fleet[i] = dray.NewPosition(fmt.Sprint("driver-", i), dray.Point{
					Latitude: float64(int(1e6*(30.27+(rnd.Float64()-0.5)*0.36))) / 1e6, Longitude: float64(int(1e6*(-97.74+(rnd.Float64()-0.5)*0.4))) / 1e6})
				fleet[i].Speed, fleet[i].Heading = 8.25, float64(rnd.IntN(360))
			}
			for i := 0; i < drivers; i += 512 {
				if _, err := s.Report(b.Context(), fleet[i:i+512]); err != nil {
					b.Fatal(err)
				}
			}
			clock := time.Now().Add(-20 * time.Second).UnixMilli()
			batch := make([]dray.Position, size)
			next := 0
			b.ReportAllocs()
			before := redistest.CPU(b, rdb)
			b.ResetTimer()
			n := 0
			for b.Loop() {
				for i := range batch {
					batch[i] = fleet[next]
					batch[i].Latitude += float64(clock%100) * 1e-6
					batch[i].Timestamp = time.UnixMilli(clock)
					if next++; next == drivers {
						next = 0
						clock++
					}
				}
				if _, err := s.Report(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				n += size
			}
			b.StopTimer()
			b.ReportMetric(float64(redistest.CPU(b, rdb)-before)/float64(n)/1000, "redis-us/position")
			b.ReportMetric(float64(b.Elapsed())/float64(n)/1000, "us/position")
			b.ReportMetric(0, "ns/op")
		})
	}
}
