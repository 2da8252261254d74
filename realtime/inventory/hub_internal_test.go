package inventory

import (
	"context"
	"fmt"
	"testing"
	"unsafe"

	"dray/redisconn"
	"dray/redisconn/redistest"
)

// A map keeps the name that it was given last: none may be part of a message, which would stay with it.
func TestRowsHoldNoMessage(t *testing.T) {
	client := redistest.Open(t, redisconn.Config{})
	s, err := New(t.Context(), Config{Redis: client})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	stock, err := s.Set(t.Context(), "shop", "milk", Set{Quantity: 10}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := NewHub(HubConfig{Redis: client})
	defer h.Close()
	r, err := h.attach(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	n := stock.Version + 1
	text := fmt.Sprintf("%d %d 1\nhold milk 0 1 x 0 * \n\nmilk\n10 0 %d 1", n, n, stock.Version)
	r.feed.Message(h.keys.feed("shop"), text)
	h.mu.RLock()
	defer h.mu.RUnlock()
	for sku, x := range r.rows {
		if x.version != n {
			t.Errorf("version %d of %s, want %d", x.version, sku, n)
		}
		from, at := uintptr(unsafe.Pointer(unsafe.StringData(text))), uintptr(unsafe.Pointer(unsafe.StringData(sku)))
		if at >= from && at < from+uintptr(len(text)) {
			t.Errorf("the name of %s is part of the message", sku)
		}
	}
}
