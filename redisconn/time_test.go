package redisconn_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"dray/redisconn"
	"dray/redisconn/redistest"
)

// However long a server was silent, or refused connections besides: within 3 s a feed is no
// longer healthy, and within 5 s of the server's being back so is the feed.
func TestFeedNoticesASilentServer(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, config redisconn.Config, redis *miniredis.Miniredis) {
		var silent, refusing atomic.Bool
		dial := config.Dialer
		config.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if refusing.Load() {
				return nil, errors.New("connection refused")
			}
			return dial(ctx, network, addr)
		}
		config.Logger = slog.New(slog.DiscardHandler)
		c := redistest.Open(t, config)
		redis.Server().SetPreHook(func(*server.Peer, string, ...string) bool { return silent.Load() })
		var r recorder
		f := c.OpenFeed(0, &r)
		ch := c.Prefix() + "ch"
		if err := f.Subscribe(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, resets := r.got(); resets > 0 || !f.Healthy() {
			t.Fatalf("%d resets, healthy %v, want none while all is well", resets, f.Healthy())
		}
		for i := 1; i <= 25; i++ {
			silence := 3*time.Second + time.Duration(i)*347*time.Millisecond
			silent.Store(true)
			refusing.Store(i%2 == 0)
			time.Sleep(2*time.Second - time.Millisecond) // the last probe is a second old at most
			if !f.Healthy() {
				t.Errorf("not healthy within 2 s of silence")
			}
			time.Sleep(time.Second + time.Millisecond)
			if f.Healthy() {
				t.Errorf("healthy after 3 s of silence")
			}
			time.Sleep(silence - 3*time.Second)
			silent.Store(false)
			refusing.Store(false)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			publish(t, c, ch, "again")
			synctest.Wait()
			if messages, resets := r.got(); resets != i || len(messages) != i || !f.Healthy() {
				t.Fatalf("5 s after silence %d, of %v: %d resets and %d messages, healthy %v, want one more of each", i, silence, resets, len(messages), f.Healthy())
			}
		}
	})
}
