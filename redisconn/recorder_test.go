package redisconn_test

import (
	"sync"
	"testing"
	"time"
)

// A recorder keeps what a feed tells it.
type recorder struct {
	mu       sync.Mutex // guards the fields below
	messages []string   // channel=payload
	resets   int
}

func (r *recorder) Message(channel, payload string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, channel+"="+payload)
}

func (r *recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resets++
}

func (r *recorder) got() (messages []string, resets int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.messages...), r.resets
}

// waitMessages waits for so many messages and returns them.
func (r *recorder) waitMessages(t testing.TB, n int) []string {
	t.Helper()
	eventually(t, 5*time.Second, "messages", func() bool { m, _ := r.got(); return len(m) >= n })
	m, _ := r.got()
	return m
}

func (r *recorder) waitResets(t testing.TB, n int, limit time.Duration) {
	t.Helper()
	eventually(t, limit, "Reset", func() bool { _, resets := r.got(); return resets >= n })
}
