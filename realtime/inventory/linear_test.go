package inventory_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// TestHistoriesAreLinearizable lets 8 clients of two nodes work at one location at once and asks
// whether their answers are those of some order of the requests, each between its call and its
// answer. One whose answer was lost may have been done at any time from its call on, or never.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Run("single, answers are lost", func(t *testing.T) {
		server := redistest.Start(t)
		proxy := redistest.NewProxy(t, server)
		c := server.Config()
		c.Host, c.Port, c.ReadTimeout = proxy.Node().Host, proxy.Node().Port, 300*time.Millisecond
		checkHistories(t, c, func(rnd *rand.Rand) {
			if rnd.IntN(2) == 0 {
				proxy.Replies(redistest.Cut)
			}
			proxy.CutAll()
			time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
			proxy.Replies(redistest.Pass)
		})
	})
	t.Run("cluster", func(t *testing.T) { checkHistories(t, redistest.Cluster(t).Config(), nil) })
}

func checkHistories(t *testing.T, c redisconn.Config, fault func(*rand.Rand)) {
	rounds := 3
	if long {
		rounds = 100
	}
	var nodes [2]*inventory.Store
	for i := range nodes {
		nodes[i] = newStore(t, inventory.Config{Redis: redistest.Open(t, c)})
	}
	n := seed(t)
	for round := range rounds {
		h := &history{t: t, nodes: nodes, location: fmt.Sprint("shop", round), began: time.Now()}
		for i := range skus {
			set(t, nodes[0], h.location, skus[i], 6)
		}
		var clients sync.WaitGroup
		for client := range 8 {
			rnd := rand.New(rand.NewPCG(n, uint64(round*100+client)))
			clients.Go(func() {
				for range 20 {
					h.do(client, rnd)
				}
			})
		}
		if fault != nil {
			clients.Go(func() {
				rnd := rand.New(rand.NewPCG(n, uint64(round)))
				h.waitFor(30 + rnd.IntN(80))
				fault(rnd)
			})
		}
		clients.Wait()
		result := porcupine.CheckOperationsTimeout(linearModel, h.operations, time.Minute)
		if result != porcupine.Ok {
			for _, o := range h.operations {
				t.Logf("client %d [%d, %d] %+v = %+v", o.ClientId, o.Call, o.Return, o.Input, o.Output)
			}
			t.Fatalf("round %d of %d requests, %d unknown: %s", round, len(h.operations), h.unknown, result)
		}
		t.Logf("round %d: %d requests are linearizable, of %d the answer was lost", round, len(h.operations), h.unknown)
		audit(t, nodes[1], h.location)
	}
}

// A history is what was asked and answered.
type history struct {
	t        *testing.T
	nodes    [2]*inventory.Store
	location string
	began    time.Time

	mu         sync.Mutex // guards the fields below
	operations []porcupine.Operation
	ids        []string // of reservations whose answer came
	numbers    []int    // the same, as numbers of the model
	reserves   int
	unknown    int
}

func (h *history) waitFor(operations int) {
	for {
		h.mu.Lock()
		n := len(h.operations)
		h.mu.Unlock()
		if n >= operations {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// An input is a request of the linear model. Reservations are numbered.
type input struct {
	what     string
	sku      int
	quantity int64
	cart     [3]int64 // units by place in skus
	number   int
}

// An output is an answer; "unknown" when it was lost.
type output struct {
	code string
	q, r int64 // the row
	text string
}

func (h *history) do(client int, rnd *rand.Rand) {
	in, id := h.draw(rnd)
	call := time.Since(h.began)
	out, made := h.send(h.nodes[rnd.IntN(2)], in, id)
	back := time.Since(h.began)
	h.mu.Lock()
	defer h.mu.Unlock()
	op := porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call.Nanoseconds(), Return: back.Nanoseconds()}
	if out.code == "unknown" {
		op.Return = math.MaxInt64
		h.unknown++
		if in.what == "get" {
			return // it tells nothing
		}
	}
	h.operations = append(h.operations, op)
	if made != "" {
		h.ids, h.numbers = append(h.ids, made), append(h.numbers, in.number)
	}
}

func (h *history) draw(rnd *rand.Rand) (in input, id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	in = input{what: "reserve", sku: rnd.IntN(3)}
	what := rnd.IntN(10)
	switch {
	case what < 4 || len(h.ids) == 0:
		in.cart[in.sku] = 1 + rnd.Int64N(2)
		in.cart[rnd.IntN(3)]++
		in.number = h.reserves
		h.reserves++
	case what < 7:
		in.what = []string{"commit", "release"}[rnd.IntN(2)]
		i := rnd.IntN(len(h.ids))
		in.number, id = h.numbers[i], h.ids[i]
	case what < 8:
		in.what = "get"
	case what < 9:
		in.what, in.quantity = "set", rnd.Int64N(8)
	default:
		in.what, in.quantity = "adjust", 1+rnd.Int64N(4)
	}
	return in, id
}

func (h *history) send(s *inventory.Store, in input, id string) (out output, made string) {
	ctx, none := h.t.Context(), inventory.Options{}
	var err error
	var stock dray.Stock
	switch in.what {
	case "reserve":
		var items []dray.Item
		for i, n := range in.cart {
			if n > 0 {
				items = append(items, dray.Item{SKU: skus[i], Quantity: n})
			}
		}
		var r dray.Reservation
		r, err = s.Reserve(ctx, h.location, items, time.Hour, none)
		made = r.Reservation
	case "commit":
		_, err = s.Commit(ctx, id, nil, none)
	case "release":
		_, err = s.Release(ctx, id, nil, none)
	case "get":
		stock, err = s.Get(ctx, h.location, skus[in.sku])
	case "set":
		stock, err = s.Set(ctx, h.location, skus[in.sku], inventory.Set{Quantity: in.quantity}, none)
	case "adjust":
		stock, err = s.Adjust(ctx, h.location, skus[in.sku], in.quantity, "", none)
	}
	switch {
	case errors.Is(err, dray.ErrUnavailable):
		return output{code: "unknown"}, ""
	case err != nil:
		return output{text: refusal(err)}, ""
	}
	return output{text: "ok", q: stock.Quantity, r: stock.Reserved}, made
}

// A state of the linear model. Comparable, so that porcupine need not be told how.
type state struct {
	q, r         [3]int64
	carts        [160][3]int8 // reservation -> units
	reservations [160]byte    // 0, h, c or r
}

var linearModel = porcupine.Model{
	Init: func() any { return state{q: [3]int64{6, 6, 6}} },
	Step: func(s, in, out any) (bool, any) {
		want, next := step(s.(state), in.(input))
		o := out.(output)
		return o.code == "unknown" || o == want, next
	},
}

// step is what a request does when it is alone.
func step(s state, in input) (output, state) {
	row := func() output { return output{text: "ok", q: s.q[in.sku], r: s.r[in.sku]} }
	switch in.what {
	case "reserve":
		short := ""
		for i, n := range in.cart {
			if available := max(s.q[i]-s.r[i], 0); n > available {
				short += fmt.Sprintf(" %s %d %d", skus[i], n, available)
			}
		}
		if short != "" {
			return output{text: string(dray.CodeInsufficientStock) + short}, s
		}
		for i, n := range in.cart {
			s.r[i] += n
			s.carts[in.number][i] = int8(n)
		}
		s.reservations[in.number] = 'h'
		return output{text: "ok"}, s
	case "commit", "release":
		switch s.reservations[in.number] {
		case 'c':
			return output{text: string(dray.CodeAlreadyCommitted)}, s
		case 'r':
			return output{text: string(dray.CodeAlreadyReleased)}, s
		}
		for i, n := range s.carts[in.number] {
			s.r[i] -= int64(n)
			if in.what == "commit" {
				s.q[i] -= int64(n)
			}
		}
		s.reservations[in.number] = in.what[0]
		return output{text: "ok"}, s
	case "set":
		if in.quantity < s.r[in.sku] {
			return output{text: string(dray.CodeBelowReserved)}, s
		}
		s.q[in.sku] = in.quantity
	case "adjust":
		s.q[in.sku] += in.quantity
	}
	return row(), s
}
