package loadtest_test

import (
	"os"

	"dray/loadtest"
)

// A report of one server and one baseline, as dray loadtest prints it.
func ExampleReport_WriteText() {
	result := func(target string, rate, server, redis, p50 float64) *loadtest.Result {
		return &loadtest.Result{
			Target: target, Operation: "positions", Rate: rate,
			Latency: &loadtest.Latency{P50: p50, P90: 2 * p50, P99: 3 * p50, Max: 4 * p50},
			CPU:     []loadtest.CPU{{Process: "server", Micros: &server, Cores: new(float64)}, {Process: "redis", Micros: &redis, Cores: new(float64)}},
			Checks:  []*loadtest.Check{{What: "the newest acknowledged position is stored", Checked: 1000}},
		}
	}
	r := loadtest.NewReport("ingest", "1000 connections", []*loadtest.Result{
		result("dray", 60_000, 14, 2, 16), result("naive", 24_000, 47, 15, 40),
	})
	r.Machine = "2 CPUs"
	r.WriteText(os.Stdout)
	// Output:
	// ingest: 1000 connections
	// 2 CPUs; CPU in microseconds an operation
	//
	//          positions/s  p50 ms   p90   p99   max  server  redis  loadtest      cores    checks
	//    dray       60,000    16.0  32.0  48.0  64.0    14.0   2.00         -  0.00+0.00  all hold
	//   naive       24,000    40.0  80.0   120   160    47.0   15.0         -  0.00+0.00  all hold
	//
	// dray against naive: 2.50 x the rate, 0.26 x the CPU of server and Redis, 0.40 x the p50, 0.40 x the p99
	//
	// dray
	//   ok     the newest acknowledged position is stored (1000 checked, 0 failed)
	//
	// naive
	//   ok     the newest acknowledged position is stored (1000 checked, 0 failed)
}
