package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"pgregory.net/rapid"

	"dray"
	"dray/realtime/location"
	"dray/realtime/watch"
)

// A heldStore takes positions and tells of none until it is asked to.
type heldStore struct {
	locations
	gate chan struct{} // Submit waits for it to close; nil is open

	mu    sync.Mutex
	taken []held
}

type held struct {
	r     location.Receiver
	token uint64
}

func (h *heldStore) Submit(ctx context.Context, positions []dray.Position, r location.Receiver, first uint64) error {
	if h.gate != nil {
		select {
		case <-h.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range positions {
		h.taken = append(h.taken, held{r, first + uint64(i)})
	}
	return nil
}

func (h *heldStore) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.taken)
}

// settle tells that the i-th position is stored.
func (h *heldStore) settle(i int) {
	h.mu.Lock()
	x := h.taken[i]
	h.mu.Unlock()
	x.r.Reported(x.token, location.Stored, nil)
}

// A loudHub has subscriptions that always have as much to say as a frame of size bytes.
type loudHub struct {
	hub
	size int

	mu   sync.Mutex
	subs []*loudSub
}

type loudSub struct {
	hub     *loudHub
	due     func()
	version uint64
	closed  chan struct{}
}

func (h *loudHub) Ready() error { return nil }

func (h *loudHub) Subscribe(ctx context.Context, shape dray.Shape, filter dray.Filter, o watch.Options) (subscription, error) {
	s := &loudSub{hub: h, due: o.Due, closed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs = append(h.subs, s)
	s.due()
	return s, nil
}

func (s *loudSub) Next(c *difference) bool {
	s.version++
	text := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), s.hub.size)...), '"')
	c.drivers = watch.Change{Snapshot: s.version == 1, Version: s.version, Entered: append(c.drivers.Entered[:0], text)}
	s.due()
	return true
}

func (s *loudSub) Update(context.Context, *dray.Shape, *dray.Filter, func()) error { return nil }
func (s *loudSub) Close()                                                          { close(s.closed) }

// serveWith runs a Server on stand-ins for the floors below.
func serveWith(t *testing.T, cfg Config, l locations, h hub) (s *Server, url string) {
	t.Helper()
	s = New(cfg)
	s.locations, s.hub = l, h
	ts := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Shutdown(ctx)
		ts.Close()
	})
	return s, ts.URL
}

func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	return dialWith(t, url, nil)
}

func dialWith(t *testing.T, url string, o *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url+"/v1/ws", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(-1)
	if welcome := read(t, ws); !strings.Contains(welcome, `"welcome"`) {
		t.Fatalf("got %s, want welcome", welcome)
	}
	return ws
}

func read(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, b, err := ws.Read(ctx)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return string(b)
}

func send(t *testing.T, ws *websocket.Conn, format string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// closeOf reads to the end.
func closeOf(ws *websocket.Conn) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if _, _, err := ws.Read(ctx); err != nil {
			return int(websocket.CloseStatus(err))
		}
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what, ": not in time")
		}
	}
}

const aPosition = `{"type":"position","driver":"d","latitude":1,"longitude":2,"seq":%d}`

func TestWindowHoldsTheSocket(t *testing.T) {
	store := new(heldStore)
	_, url := serveWith(t, Config{MessagesPerSecond: -1, MaxOutstanding: 1000}, store, nil)
	ws := dial(t, url)
	const all = 3000
	go func() {
		for seq := range all {
			if ws.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil, aPosition, seq)) != nil {
				return
			}
		}
	}()
	wait(t, "a full window", func() bool { return store.count() == 1000 })
	// The oldest is not settled, so none of the others makes room.
	for i := 1; i < 1000; i++ {
		store.settle(i)
	}
	if n := store.count(); n != 1000 {
		t.Fatalf("%d positions taken, want the window of 1000 to hold", n)
	}
	store.settle(0)
	settled := 1000
	for settled < all {
		wait(t, "more", func() bool { return store.count() > settled })
		if n := store.count() - settled; n > 1000 {
			t.Fatalf("%d positions on their way, want at most 1000", n)
		}
		store.settle(settled)
		settled++
	}
	for last := ""; last != fmt.Sprintf(`{"type":"ack","seq":%d}`, all-1); {
		last = read(t, ws)
	}
}

func TestLoudSubscriptionsTakeTurnsAndAnswersPass(t *testing.T) {
	h := &loudHub{size: 40_000}
	_, url := serveWith(t, Config{}, new(heldStore), h)
	ws := dial(t, url)
	for id := range 3 {
		send(t, ws, `{"type":"subscribe","id":%d,"drivers":["a"],"intervalMs":0}`, id)
	}
	count := map[string]int{}
	for count["0"]+count["1"]+count["2"] < 300 {
		id, _, _ := strings.Cut(strings.Split(read(t, ws), `"id":`)[1], ",")
		count[id]++
	}
	if count["0"] < 90 || count["1"] < 90 || count["2"] < 90 {
		t.Errorf("frames a subscription: %v, want about as many for each", count)
	}
	send(t, ws, `{"type":"unsubscribe","id":1}`)
	for range 200 {
		if got := read(t, ws); got == `{"type":"ok","id":1}` {
			for range 20 {
				if got := read(t, ws); strings.Contains(got[:60], `"id":1,`) {
					t.Fatalf("got %.60s after the ok of unsubscribe", got)
				}
			}
			return
		}
	}
	t.Error("no ok within 200 frames of subscriptions")
}

func TestMaxSubscriptions(t *testing.T) {
	_, url := serveWith(t, Config{MaxSubscriptions: 2}, new(heldStore), &loudHub{size: 1})
	ws := dial(t, url)
	for id := range 3 {
		send(t, ws, `{"type":"subscribe","id":%d,"drivers":["a"],"intervalMs":0}`, id)
	}
	for range 10_000 {
		if got := read(t, ws); strings.Contains(got, `"error"`) {
			if !strings.Contains(got, `"id":2,"code":"too_many_subscriptions"`) {
				t.Errorf("got %s, want too_many_subscriptions", got)
			}
			return
		}
	}
	t.Error("the third subscription was taken")
}

func TestDrain(t *testing.T) {
	store := new(heldStore)
	s, url := serveWith(t, Config{}, store, &loudHub{})
	ws := dial(t, url)
	send(t, ws, aPosition, 7)
	wait(t, "the position", func() bool { return store.count() == 1 })
	drained := make(chan error, 1)
	go func() { drained <- s.Shutdown(context.Background()) }()
	wait(t, "the drain", s.draining.Load)
	_, res, err := websocket.Dial(t.Context(), url+"/v1/ws", nil)
	if err == nil || res == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("Dial while draining = %v, %v, want 503 with Retry-After", res, err)
	}
	ready := httptest.NewRecorder()
	s.Handler().ServeHTTP(ready, httptest.NewRequest("GET", "/health/ready", nil))
	if ready.Code != 503 || !strings.Contains(ready.Body.String(), "draining") {
		t.Errorf("ready while draining = %d %s, want 503", ready.Code, ready.Body)
	}
	store.settle(0)
	if got := read(t, ws); got != `{"type":"ack","seq":7}` {
		t.Errorf("got %s, want the ack of what was on its way", got)
	}
	if got := read(t, ws); !strings.Contains(got, `"goodbye"`) || !strings.Contains(got, `"retryAfterMs":`) {
		t.Errorf("got %s, want goodbye", got)
	}
	if got := closeOf(ws); got != dray.CloseRestart {
		t.Errorf("closed with %d, want 1012", got)
	}
	if err := <-drained; err != nil {
		t.Errorf("Shutdown = %v, want nil", err)
	}
}

// A drain whose time is up waits for nobody.
func TestDrainIsCutShort(t *testing.T) {
	store := new(heldStore)
	s, url := serveWith(t, Config{}, store, &loudHub{})
	ws, idle := dial(t, url), dial(t, url)
	send(t, ws, aPosition, 1)
	wait(t, "the position", func() bool { return store.count() == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown = %v, want %v", err, context.Canceled)
	}
	closeOf(ws)
	closeOf(idle)
	store.settle(0) // nobody is there to hear it
}

func TestThrottle(t *testing.T) {
	now := time.Unix(1000, 0)
	run := func(x *throttle, perSecond int, d time.Duration) (v verdict) {
		for end := now.Add(d); now.Before(end) && v != flood; {
			var wait time.Duration
			if v, wait = x.admit(now, 1); v == pass && wait > 0 {
				now = now.Add(wait)
				x.waited(now)
			}
			now = now.Add(time.Second / time.Duration(perSecond))
		}
		return v
	}
	t.Run("within the rate", func(t *testing.T) {
		x := newThrottle(100, 200)
		if v := run(&x, 100, time.Minute); v != pass || !x.since.IsZero() {
			t.Errorf("verdict %v, want pass", v)
		}
	})
	t.Run("bursts with rests", func(t *testing.T) {
		x := newThrottle(100, 200)
		for range 20 {
			if v := run(&x, 1000, 200*time.Millisecond); v != pass {
				t.Fatalf("verdict %v, want pass", v)
			}
			now = now.Add(2 * time.Second)
		}
	})
	t.Run("near the rate in lumps, its burst spent", func(t *testing.T) {
		x := newThrottle(1000, 2000)
		at := now
		for lump := range 600 {
			n := 85
			if lump == 0 {
				n = 2500
			}
			if at.After(now) {
				now = at
			}
			for range n {
				v, wait := x.admit(now, 1)
				if v != pass {
					t.Fatalf("lump %d is refused", lump)
				}
				if wait > 0 {
					now = now.Add(wait + time.Millisecond)
					x.waited(now)
				}
			}
			at = at.Add(100 * time.Millisecond)
		}
	})
	t.Run("refused, then heeds it", func(t *testing.T) {
		x := newThrottle(100, 200)
		for v := pass; v != refuse; v = run(&x, 1000, 10*time.Millisecond) {
		}
		_, wait := x.admit(now, 1)
		now = now.Add(wait)
		if v, _ := x.admit(now, 1); v != pass {
			t.Errorf("verdict %v, want pass", v)
		}
	})
	t.Run("refused, and goes on", func(t *testing.T) {
		x := newThrottle(100, 200)
		began := now
		if v := run(&x, 1000, 20*time.Second); v != flood {
			t.Errorf("verdict %v, want flood", v)
		}
		if took := now.Sub(began); took < patience+2*refusal {
			t.Errorf("flooding after %v, want patience first", took)
		}
	})
}

// A window acknowledges what a plain list would.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWindow()
		var seqs []int64
		var open []uint64
		settled := map[uint64]bool{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if len(open) == 0 || rapid.Bool().Draw(t, "add") {
				seq := int64(-1)
				if rapid.Bool().Draw(t, "acked") {
					seq = int64(len(seqs))
				}
				open = append(open, w.add(slot{seq: seq}))
				seqs = append(seqs, seq)
				continue
			}
			i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
			token := open[i]
			open = slices.Delete(open, i, i+1)
			settled[token] = true
			was := w.covered
			if s, more := w.settle(token); s.seq != seqs[token] || more != (w.covered > was) {
				t.Fatalf("settle(%d) = %+v, %v", token, s, more)
			}
			want := int64(-1)
			for j := uint64(0); settled[j]; j++ {
				want = max(want, seqs[j])
			}
			if w.covered != want {
				t.Fatalf("covered %d, want %d", w.covered, want)
			}
			if rapid.Bool().Draw(t, "rest") {
				w.rest()
			}
		}
	})
}

func TestFrameHeaders(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 0xffff, 0x10000, 300_000} {
		b, start := beginFrame([]byte("before"))
		b = endFrame(append(b, bytes.Repeat([]byte("p"), n)...), start)
		head := b[len("before") : len(b)-n]
		want := map[bool]int{n < 126: 2, n >= 126 && n <= 0xffff: 4, n > 0xffff: 10}[true]
		if len(head) != want || head[0] != final|opText || !bytes.HasPrefix(b, []byte("before")) || bytes.Count(b[len("before")+want:], []byte("p")) != n {
			t.Errorf("header of %d bytes is %x", n, head)
		}
		var f frameCounter
		if f.add(b[len("before"):]); f.skip != 0 || f.n != 0 {
			t.Errorf("the counter does not find the end of a frame of %d bytes: %+v", n, f)
		}
	}
}

// However the bytes are cut, the counter counts the same.
func TestFrameCounter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		want := 0
		for range rapid.IntRange(1, 20).Draw(t, "frames") {
			op := rapid.SampledFrom([]byte{0, opText, opBinary, opPing, opPong}).Draw(t, "op")
			n := rapid.SampledFrom([]int{0, 1, 125, 126, 700, 70_000}).Draw(t, "length")
			b, start := beginFrame(stream)
			b = endFrame(append(b, make([]byte, n)...), start)
			b[start] = final | op
			b[start+1] |= 0x80
			b = append(b, 0, 0, 0, 0) // as long as a mask
			stream = b
			if op != opText && op != opBinary {
				want++
			}
		}
		var f frameCounter
		got := 0
		for len(stream) > 0 {
			n := rapid.IntRange(1, len(stream)).Draw(t, "cut")
			got += f.add(stream[:n])
			stream = stream[n:]
		}
		if got != want {
			t.Fatalf("%d extra frames, want %d", got, want)
		}
	})
}

func TestCheckListen(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:8080": true, "[::1]:8080": true, "localhost:0": true, "127.9.9.9:1": true, "[::ffff:127.0.0.1]:1": true,
		":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "10.0.0.1:80": false, "example.com:80": false, "8080": false,
	} {
		if err := CheckListen(addr); (err == nil) != want {
			t.Errorf("CheckListen(%q) = %v", addr, err)
		}
	}
}
