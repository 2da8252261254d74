package httpapi_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"dray"
)

// ask makes a request over REST or over a socket.
func (n *node) ask(ws *client, over, do, members string) answer {
	n.t.Helper()
	if over == "ws" {
		ws.send(`{"type":"` + do + `","id":1,` + members + `}`)
		return read(n.t.(*testing.T), ws.read())
	}
	path := "/v1/reservations"
	if id, ok := strings.CutPrefix(members, `"reservation":"`); ok {
		id, _, _ = strings.Cut(id, `"`)
		path += "/" + id + "/" + do
	}
	_, body := n.do("POST", path, "{"+members+"}")
	a := read(n.t.(*testing.T), body)
	a.Reservation = json.RawMessage(body)
	return a
}

func TestWrongOrders(t *testing.T) {
	for _, over := range []string{"REST", "ws"} {
		t.Run(over, func(t *testing.T) {
			n := start(t, nil)
			ws := n.join()
			n.do("PUT", "/v1/stock/default/a", `{"quantity":100}`)
			n.do("PUT", "/v1/stock/default/b", `{"quantity":100}`)
			for _, c := range []struct {
				name  string
				steps string // each is what is done; the last one is refused
				code  dray.Code
			}{
				{"commit after release", "release commit", dray.CodeAlreadyReleased},
				{"release after commit", "commit release", dray.CodeAlreadyCommitted},
				{"commit twice", "commit commit", dray.CodeAlreadyCommitted},
				{"release twice", "release release", dray.CodeAlreadyReleased},
				{"extend after release", "release extend", dray.CodeAlreadyReleased},
				{"extend after commit", "extend commit extend", dray.CodeAlreadyCommitted},
				{"more than is held, after a part", "commit:1 commit:2", dray.CodeExceedsHeld},
				{"a line that was committed", "commit:2 commit:1", dray.CodeAlreadyCommitted},
				{"a line that was released", "release:2 commit:1", dray.CodeAlreadyReleased},
			} {
				a := n.ask(ws, over, "reserve", `"items":[{"sku":"a","quantity":2},{"sku":"b","quantity":1}]`)
				var r dray.Reservation
				if err := json.Unmarshal(a.Reservation, &r); err != nil {
					t.Fatalf("reserve = %+v, %v", a, err)
				}
				steps := strings.Fields(c.steps)
				for i, step := range steps {
					do, part, _ := strings.Cut(step, ":")
					members := `"reservation":"` + r.Reservation + `"`
					if part != "" {
						members += "," + item(part)
					}
					want := dray.Code("")
					if i == len(steps)-1 {
						want = c.code
					}
					if got := n.ask(ws, over, do, members); got.Code != want {
						t.Errorf("%s: %s = %q, want %q", c.name, step, got.Code, want)
					}
				}
				n.ask(ws, over, "release", `"reservation":"`+r.Reservation+`"`)
			}
		})
	}
}

// Whoever sends the same key while the first request runs gets the same answer.
func TestTheSameKeyAtOnce(t *testing.T) {
	n := start(t, nil)
	n.do("PUT", "/v1/stock/default/a", `{"quantity":100}`)
	const cart = `"items":[{"sku":"a","quantity":1}]`
	ws := n.join()
	const times = 8
	for range times {
		ws.send(`{"type":"reserve","id":1,"key":"k",` + cart + `}`)
	}
	bodies := make([]string, times)
	var wg sync.WaitGroup
	for i := range times {
		wg.Go(func() { _, bodies[i] = n.do("POST", "/v1/reservations", "{"+cart+"}", "Idempotency-Key", "k") })
	}
	wg.Wait()
	for i := range times {
		if text := read(t, ws.read()).Reservation; string(text) != bodies[i] {
			t.Errorf("the answers are %s and %s, want the same", text, bodies[i])
		}
	}
	if s, err := n.stock.Get(t.Context(), "default", "a"); err != nil || s.Reserved != 1 {
		t.Errorf("the stock is %+v, %v, want 1 reserved", s, err)
	}
}

func TestPutBelowWhatIsReserved(t *testing.T) {
	n := start(t, nil)
	n.do("PUT", "/v1/stock/default/a", `{"quantity":5}`)
	n.do("POST", "/v1/reservations", `{"items":[{"sku":"a","quantity":3}]}`)
	if res, body := n.do("PUT", "/v1/stock/default/a", `{"quantity":2,"force":false}`); res.StatusCode != 409 || read(t, body).Code != dray.CodeBelowReserved {
		t.Errorf("PUT below what is reserved = %d %s, want 409 %s", res.StatusCode, body, dray.CodeBelowReserved)
	}
	res, body := n.do("PUT", "/v1/stock/default/a", `{"quantity":2,"force":true}`)
	var s dray.Stock
	if err := json.Unmarshal([]byte(body), &s); err != nil || res.StatusCode != 200 || s.Quantity != 2 || s.Reserved != 3 || s.Available != 0 {
		t.Errorf("forced = %d %s, %v, want 2 on hand, 3 reserved and 0 available", res.StatusCode, body, err)
	}
	if res, body := n.do("POST", "/v1/stock/default/a/adjust", `{"delta":-1}`); res.StatusCode != 409 || read(t, body).Code != dray.CodeBelowReserved {
		t.Errorf("adjust below what is reserved = %d %s, want 409 %s", res.StatusCode, body, dray.CodeBelowReserved)
	}
}
