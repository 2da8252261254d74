package redisconn_test

import (
	"context"
	"testing"
	"time"

	"dray/redisconn/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// within is a context that ends with the test or after d.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually asks ok until it is true; the test fails when limit passes first.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}
