package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dray"
)

// A slowStock answers a Get when its gate closes; of the SKU "now" at once.
type slowStock struct {
	stock
	gate  chan struct{}
	asked atomic.Int64
}

func (s *slowStock) Get(ctx context.Context, location, sku string) (dray.Stock, error) {
	switch sku {
	case "now":
		return dray.Stock{Location: location, SKU: sku}, nil
	case "panic":
		panic("no stock")
	}
	s.asked.Add(1)
	select {
	case <-s.gate:
		return dray.Stock{Location: location, SKU: sku}, nil
	case <-ctx.Done():
		return dray.Stock{}, ctx.Err()
	}
}

func serveStock(t *testing.T, store *heldStore) (s *Server, st *slowStock, url string) {
	t.Helper()
	st = &slowStock{gate: make(chan struct{})}
	s = New(Config{Logger: slog.New(slog.DiscardHandler)}) // of the panic
	s.locations, s.stock = store, st
	ts := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Shutdown(ctx)
		ts.Close()
	})
	return s, st, ts.URL
}

func TestStockHoldsUpNoPositions(t *testing.T) {
	store := new(heldStore)
	_, st, url := serveStock(t, store)
	ws := dial(t, url)
	send(t, ws, `{"type":"stock","id":"slow","sku":"a"}`)
	wait(t, "the question", func() bool { return st.asked.Load() == 1 })
	send(t, ws, aPosition, 1)
	send(t, ws, `{"type":"stock","id":2,"sku":"now"}`)
	if got := read(t, ws); !strings.HasPrefix(got, `{"type":"result","id":2,`) {
		t.Errorf("got %s, want the answer to the later question first", got)
	}
	wait(t, "the position", func() bool { return store.count() == 1 })
	store.settle(0)
	if got := read(t, ws); got != `{"type":"ack","seq":1}` {
		t.Errorf("got %s, want the ack", got)
	}
	close(st.gate)
	if got := read(t, ws); !strings.HasPrefix(got, `{"type":"result","id":"slow",`) {
		t.Errorf("got %s, want the answer to the first question", got)
	}
}

func TestQuestionsToTheStockAreBounded(t *testing.T) {
	store := new(heldStore)
	s, st, url := serveStock(t, store)
	ws := dial(t, url)
	for id := range maxAsking + 1 {
		send(t, ws, `{"type":"stock","id":%d,"sku":"a"}`, id)
	}
	send(t, ws, aPosition, 1)
	c := s.all(nil)[0]
	wait(t, "the bound", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.asking == maxAsking && c.handling.Load() && st.asked.Load() == maxAsking
	})
	if store.count() != 0 {
		t.Error("the connection was read on at the bound")
	}
	close(st.gate)
	wait(t, "the rest", func() bool { return st.asked.Load() == maxAsking+1 && store.count() == 1 })
	seen := map[string]bool{}
	for range maxAsking + 1 {
		id, _, _ := strings.Cut(strings.TrimPrefix(read(t, ws), `{"type":"result","id":`), ",")
		seen[id] = true
	}
	for id := range maxAsking + 1 {
		if !seen[fmt.Sprint(id)] {
			t.Errorf("no answer to %d", id)
		}
	}
}

func TestDrainWaitsForTheStock(t *testing.T) {
	s, st, url := serveStock(t, new(heldStore))
	ws := dial(t, url)
	send(t, ws, `{"type":"stock","id":1,"sku":"a"}`)
	wait(t, "the question", func() bool { return st.asked.Load() == 1 })
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	wait(t, "the drain", s.draining.Load)
	close(st.gate)
	for _, want := range []string{`{"type":"result","id":1,`, `{"type":"goodbye",`} {
		if got := read(t, ws); !strings.HasPrefix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if code := closeOf(ws); code != dray.CloseRestart {
		t.Errorf("closed with %d, want %d", code, dray.CloseRestart)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown() = %v", err)
	}
}

func TestAQuestionEndsWithItsConnection(t *testing.T) {
	s, st, url := serveStock(t, new(heldStore))
	ws := dial(t, url)
	send(t, ws, `{"type":"stock","id":1,"sku":"a"}`)
	wait(t, "the question", func() bool { return st.asked.Load() == 1 })
	ws.CloseNow()
	wait(t, "the end", func() bool { return len(s.all(nil)) == 0 })
}

func TestAPanicInTheStockEndsTheConnectionAlone(t *testing.T) {
	_, _, url := serveStock(t, new(heldStore))
	other, ws := dial(t, url), dial(t, url)
	send(t, ws, `{"type":"stock","id":1,"sku":"panic"}`)
	if code := closeOf(ws); code != dray.CloseInternal {
		t.Errorf("closed with %d, want %d", code, dray.CloseInternal)
	}
	send(t, other, `{"type":"stock","id":1,"sku":"now"}`)
	if got := read(t, other); !strings.HasPrefix(got, `{"type":"result","id":1,`) {
		t.Errorf("got %s, want an answer", got)
	}
}
