package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"dray"
	"dray/realtime/inventory"
	"dray/realtime/watch"
)

// A bigHub's subscriptions have one snapshot of the same fragments, and then one delta.
type bigHub struct {
	hub
	fragments [][]byte
}

type bigSub struct {
	hub     *bigHub
	due     func()
	version uint64
}

func (h *bigHub) Ready() error { return nil }

func (h *bigHub) Subscribe(ctx context.Context, shape dray.Shape, filter dray.Filter, o watch.Options) (subscription, error) {
	o.Due()
	return &bigSub{hub: h, due: o.Due}, nil
}

func (s *bigSub) Next(c *difference) bool {
	if s.version++; s.version > 2 {
		return false
	}
	if s.version == 1 {
		s.due()
	}
	c.drivers = watch.Change{Snapshot: s.version == 1, Version: s.version, Entered: append(c.drivers.Entered[:0], s.hub.fragments...)}
	return true
}

func (s *bigSub) Update(context.Context, *dray.Shape, *dray.Filter, func()) error { return nil }
func (s *bigSub) Close()                                                          {}

func newBigHub(n, size int) *bigHub {
	h := &bigHub{}
	for i := range n {
		h.fragments = append(h.fragments, fmt.Appendf(nil, `{"driver":"d%d","x":"%s"}`, i, strings.Repeat("x", size-30)))
	}
	return h
}

// Whoever takes a large snapshot slowly holds a piece of it, not a copy.
func TestSlowReadersHoldNoCopies(t *testing.T) {
	const (
		readers = 40
		size    = 8 << 20
		budget  = 512 << 10 // for each: a piece, the list of 8,192 fragments twice, its connection
	)
	heap := func() int64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	inBubble(t, Config{}, new(heldStore), newBigHub(size>>10, 1<<10), func(t *testing.T, s *Server, p pipes) {
		before := heap()
		for range readers {
			nc, _ := p.raw(t)
			nc.Write(masked(nil, `{"type":"subscribe","id":1,"drivers":["a"]}`))
		}
		synctest.Wait() // until all are written to
		if each := (heap() - before) / readers; each > budget {
			t.Errorf("a slow reader of %d bytes holds %d, want at most %d", size, each, budget)
		}
		for _, c := range s.all(nil) {
			if c.writing.Load() == 0 {
				t.Fatal("a reader is not written to")
			}
		}
	})
}

// A large snapshot is one message, though its frames are many, and answers and deltas
// come after it; pongs need not wait.
func TestLargeSnapshotIsOneMessage(t *testing.T) {
	h := newBigHub(20_000, 400)
	inBubble(t, Config{}, new(heldStore), h, func(t *testing.T, s *Server, p pipes) {
		var kinds []string
		pong := "none"
		ws := p.dial(t, websocket.DialOptions{OnPongReceived: func(context.Context, []byte) { pong = fmt.Sprint("after ", kinds) }})
		send(t, ws, `{"type":"subscribe","id":"a","drivers":["a"]}`)
		synctest.Wait() // until the writer stands in the middle of the message
		send(t, ws, `{"type":"unsubscribe","id":"b"}`)
		go ws.Ping(t.Context())
		synctest.Wait()
		for len(kinds) < 3 {
			text := read(t, ws)
			var m struct {
				Type             string
				Drivers, Entered []struct{ Driver string }
			}
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Fatalf("%.80s…: %v", text, err)
			}
			kinds = append(kinds, m.Type)
			if m.Type == "error" {
				continue
			}
			list := m.Drivers
			if m.Type == "delta" {
				list = m.Entered
			}
			if len(list) != len(h.fragments) {
				t.Fatalf("a %s of %d drivers, want %d", m.Type, len(list), len(h.fragments))
			}
			for i, d := range list {
				if d.Driver != fmt.Sprintf("d%d", i) {
					t.Fatalf("driver %d of the %s is %s", i, m.Type, d.Driver)
				}
			}
		}
		if pong != "after []" {
			t.Errorf("pong: %s, want it between the frames of the snapshot", pong)
		}
		if got := strings.Join(kinds, " "); got != "snapshot error delta" {
			t.Errorf("got %s, want snapshot error delta", got)
		}
	})
}

// The pieces of any change, put together, are the change.
func TestChangeText(t *testing.T) {
	s := &Server{cfg: Config{}.withDefaults(), m: newMetrics(prometheus.NewRegistry(), new(budget))}
	rapid.Check(t, func(t *rapid.T) {
		fragments := func(label string) (all [][]byte) {
			for range rapid.SampledFrom([]int{0, 0, 1, 2, 40}).Draw(t, label) {
				n := rapid.SampledFrom([]int{1, 100, 3000, writeSize}).Draw(t, "size")
				all = append(all, fmt.Appendf(nil, `{"receivedAt":1,"x":"%s"}`, strings.Repeat("x", n)))
			}
			return all
		}
		c := watch.Change{Version: 7, Snapshot: rapid.Bool().Draw(t, "snapshot"), Entered: fragments("entered")}
		want := `{"type":"snapshot","id":1,"version":7,"serverTime":0`
		list := func(name string, all [][]byte) {
			if len(all) > 0 || name == "drivers" {
				var texts []string
				for _, f := range all {
					texts = append(texts, string(f))
				}
				want += `,"` + name + `":[` + strings.Join(texts, ",") + `]`
			}
		}
		if c.Snapshot {
			list("drivers", c.Entered)
		} else {
			want = strings.Replace(want, "snapshot", "delta", 1)
			c.Moved = fragments("moved")
			var left [][]byte
			for i := range rapid.SampledFrom([]int{0, 1, 2000}).Draw(t, "left") {
				c.Left = append(c.Left, dray.Leave{Driver: fmt.Sprint("d", i), Reason: dray.LeftMoved})
				left = append(left, fmt.Appendf(nil, `{"driver":"d%d","reason":"moved"}`, i))
			}
			list("left", left)
			list("entered", c.Entered)
			list("moved", c.Moved)
		}
		want += "}"
		s.cfg.Now = func() time.Time { return time.UnixMilli(0) }
		x := s.changeText([]byte("1"), &difference{drivers: c})
		got := pieces(t, &x)
		if got != want {
			t.Fatalf("got %.300s…, %d bytes, want %.300s…, %d", got, len(got), want, len(want))
		}
	})
}

// pieces puts the pieces of a message together, each of which begins at any place of a write.
func pieces(t *rapid.T, x *changeText) string {
	got := ""
	for x.more() {
		before := rapid.SampledFrom([]int{0, 100, writeSize - 1}).Draw(t, "before")
		b := x.appendPiece(make([]byte, before))[before:]
		if len(b) > 2*writeSize+200 {
			t.Fatalf("a piece of %d bytes", len(b))
		}
		if first, last := b[0]&0xf == opText, b[0]&final != 0; first != (got == "") || last == x.more() {
			t.Fatalf("the frame at %d begins with %#x", len(got), b[0])
		}
		head := 2
		switch b[1] {
		case 126:
			head = 4
		case 127:
			head = 10
		}
		got += string(b[head:])
	}
	return got
}

// The same of stock.
func TestChangeTextOfStock(t *testing.T) {
	s := &Server{cfg: Config{}.withDefaults(), m: newMetrics(prometheus.NewRegistry(), new(budget))}
	s.cfg.Now = func() time.Time { return time.UnixMilli(0) }
	rapid.Check(t, func(t *rapid.T) {
		c := inventory.Change{Version: 7, Snapshot: rapid.Bool().Draw(t, "snapshot")}
		want := `{"type":"delta","id":1,"version":7,"serverTime":0`
		if c.Snapshot {
			want = strings.Replace(want, "delta", "snapshot", 1)
		}
		list := func(name string, always bool, item func(sku string) string) {
			var texts []string
			for i := range rapid.SampledFrom([]int{0, 0, 1, 2, 2000}).Draw(t, name) {
				texts = append(texts, item(fmt.Sprint("s", i)))
			}
			if always || len(texts) > 0 {
				want += `,"` + name + `":[` + strings.Join(texts, ",") + `]`
			}
		}
		if !c.Snapshot {
			list("left", false, func(sku string) string {
				c.Left = append(c.Left, dray.StockLeave{SKU: sku, Reason: dray.LeftShape})
				return `{"sku":"` + sku + `","reason":"shape"}`
			})
		}
		list("stock", c.Snapshot, func(sku string) string {
			c.Rows = append(c.Rows, []byte(`{"sku":"`+sku+`"}`))
			return `{"sku":"` + sku + `"}`
		})
		list("events", false, func(sku string) string {
			c.Events = append(c.Events, dray.StockEvent{SKU: sku, Event: dray.StockLow, Available: 2})
			return `{"sku":"` + sku + `","event":"low","available":2}`
		})
		want += "}"
		x := s.changeText([]byte("1"), &difference{ofStock: true, stock: c})
		if got := pieces(t, &x); got != want {
			t.Fatalf("got %.300s…, %d bytes, want %.300s…, %d", got, len(got), want, len(want))
		}
	})
}
