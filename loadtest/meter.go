package loadtest

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A meter counts operations and how long they took, while it is open.
type meter struct {
	began, ended atomic.Int64 // of the window, by nanos
	shards       [8]struct {
		mu   sync.Mutex // guards hist
		hist *hdrhistogram.Histogram
		_    [40]byte // shards in cache lines of their own
	}
}

// Latencies are kept in microseconds, to three digits, up to what counts as never.
const slowest = int64(100 * time.Second / time.Microsecond)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, slowest, 3) }

func newMeter() *meter {
	m := &meter{}
	for i := range m.shards {
		m.shards[i].hist = newHistogram()
	}
	m.began.Store(math.MaxInt64)
	m.ended.Store(math.MaxInt64)
	return m
}

func (m *meter) open() int64 {
	now := nanos()
	m.began.Store(now)
	return now
}

func (m *meter) close() int64 {
	now := nanos()
	m.ended.Store(now)
	return now
}

// within tells whether at lies in the window.
func (m *meter) within(at int64) bool { return at >= m.began.Load() && at < m.ended.Load() }

// record counts n operations that took so many nanoseconds each. Which of them the window
// holds is the caller's to say.
func (m *meter) record(shard int, took int64, n int) {
	s := &m.shards[shard%len(m.shards)]
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.hist.RecordValues(min(max(took/1000, 1), slowest), int64(n)) // within its bounds
}

// done counts n operations that began at sent and ended now, if the window is open.
func (m *meter) done(shard int, sent, now int64, n int) {
	if m.within(now) {
		m.record(shard, now-sent, n)
	}
}

func (m *meter) count() (n int64) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += s.hist.TotalCount()
		s.mu.Unlock()
	}
	return n
}

// total is all shards in one.
func (m *meter) total() *hdrhistogram.Histogram {
	sum := newHistogram()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		sum.Merge(s.hist)
		s.mu.Unlock()
	}
	return sum
}
