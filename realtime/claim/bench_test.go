package claim_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"dray"
	"dray/redisconn/redistest"
)

// BenchmarkClaim is 64 callers that hold the nearest of 10 000 drivers in a city of 20 km and give
// it back, which is one op: all over the city, or all at one place, as rivals; or they are refused,
// for all are held. Commands are what Redis runs, in scripts too: 16 an op where no call had to be
// repeated, 3 where it is refused.
func BenchmarkClaim(b *testing.B) {
	const city = 0.18 // degrees
	within := func(degrees float64) dray.Point {
		return dray.Point{Latitude: here.Latitude + degrees*(rand.Float64()-0.5), Longitude: here.Longitude + degrees*(rand.Float64()-0.5)}
	}
	client := redistest.Open(b, redistest.Start(b).Config())
	n := newNode(b, client)
	for i := range 10 {
		fleet := make([]dray.Position, 1000)
		for j := range fleet {
			fleet[j] = dray.NewPosition(fmt.Sprint("driver-", 1000*i+j), within(city))
		}
		if _, err := n.store.Report(b.Context(), fleet); err != nil {
			b.Fatal(err)
		}
	}
	for _, way := range []struct {
		name    string
		degrees float64
		want    error
	}{{"city", city, nil}, {"one-place", 0, nil}, {"refused", city, dray.ErrNoneAvailable}} {
		b.Run(way.name, func(b *testing.B) {
			all := request(dray.MaxClaimed)
			all.Radius = dray.MaxRadius
			if _, err := n.hub.Nearby(b.Context(), here, all.Radius, 1, nil); err != nil { // the copies are made
				b.Fatal(err)
			}
			for err := error(nil); way.want != nil && err == nil; {
				_, err = n.claims.Claim(b.Context(), "", all)
			}
			commands, before, own := redistest.Commands(b, client), redistest.CPU(b, client), redistest.OwnCPU(b)
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, at := request(1), within(way.degrees)
					r.Latitude, r.Longitude = at.Latitude, at.Longitude
					c, err := n.claims.Claim(b.Context(), "", r)
					if err == nil {
						err = n.claims.Unclaim(b.Context(), c.ID)
					}
					if !errors.Is(err, way.want) {
						b.Errorf("Claim() and Unclaim() = %v, want %v", err, way.want)
						return
					}
				}
			})
			b.StopTimer()
			ops := float64(b.N)
			b.ReportMetric(float64((redistest.CPU(b, client)-before).Microseconds())/ops, "us-redis/op")
			b.ReportMetric(float64((redistest.OwnCPU(b)-own).Microseconds())/ops, "us-go/op")
			b.ReportMetric(float64(redistest.Commands(b, client)-commands)/ops, "commands/op")
			b.ReportMetric(ops/b.Elapsed().Seconds(), "op/s")
		})
	}
}
