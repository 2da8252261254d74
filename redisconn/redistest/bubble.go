package redistest

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"dray/redisconn"

	"github.com/alicebob/miniredis/v2"
)

// Bubble runs a test in a bubble of testing/synctest, whose clock moves only while everybody
// waits: for what happens when. The sockets of a real server would hold it up, so here the server
// is a miniredis, which does as Redis but lets no key expire, and its connections are pipes.
func Bubble(t *testing.T, test func(t *testing.T, config redisconn.Config, server *miniredis.Miniredis)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(20 * 365 * 24 * time.Hour) // from 2000 on, when milliseconds had a digit less
		server := miniredis.NewMiniRedis()
		t.Cleanup(server.Close)
		test(t, redisconn.Config{Host: "memory", KeyPrefix: Prefix(t), Dialer: func(context.Context, string, string) (net.Conn, error) {
			return server.Dial()
		}}, server)
	})
}
