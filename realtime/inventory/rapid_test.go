package inventory_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"dray"
	"dray/realtime/inventory"
)

// long asks for the long variants of tests: DRAY_LONG=1.
var long = os.Getenv("DRAY_LONG") != ""

// TestStoreEqualsModel runs random requests, one after the other, and after each one compares the
// answer, the counters, the reservations and the whole ledger with a simple model. rapid prints
// how to run a failure again. What expires when is Redis's to say; the model checks that it is
// neither early nor late, and that the answer is that of a moment before or after.
func TestStoreEqualsModel(t *testing.T) {
	checks(t, 40, 1000)
	var locations atomic.Int64
	onEach(t, func(t *testing.T, s *inventory.Store) {
		rapid.Check(t, func(t *rapid.T) {
			r := &run{store: s, model: newShop(fmt.Sprintf("shop.%d", locations.Add(1)))}
			steps := map[string]func(*rapid.T){"": func(t *rapid.T) {}}
			for name, draw := range requests {
				steps[name] = func(t *rapid.T) { r.step(t, draw(t, r.model)) }
			}
			steps["wait"] = r.wait
			t.Repeat(steps)
		})
	})
}

// TestCallsEqualModel is TestStoreEqualsModel by calls of apply.lua that carry many requests. Nobody
// sweeps, so what has fallen due meets in the next call.
func TestCallsEqualModel(t *testing.T) {
	checks(t, 20, 1000)
	var locations atomic.Int64
	onEach(t, func(t *testing.T, s *inventory.Store) {
		rapid.Check(t, func(t *rapid.T) {
			r := &run{store: s, model: newShop(fmt.Sprintf("call.%d", locations.Add(1)))}
			call := func(t *rapid.T, least int, names ...string) {
				var all []request
				for _, name := range rapid.SliceOfN(rapid.SampledFrom(names), least, 10).Draw(t, "requests") {
					all = append(all, requests[name](t, r.model))
				}
				r.step(t, all...)
			}
			call(t, 5, "set")
			t.Repeat(map[string]func(*rapid.T){
				"call": func(t *rapid.T) {
					call(t, 1, "hold", "hold", "hold", "hold", "hold", "extend", "extend", "extend", "reserve", "commit", "release", "set", "adjust", "get", "reservation")
				},
				"wait": r.wait,
			})
		})
	})
}

// checks sets how often rapid runs, unless the command line does.
func checks(t *testing.T, short, many int) {
	f := flag.Lookup("rapid.checks")
	if was := f.Value.String(); was == f.DefValue {
		if long {
			short = many
		}
		_ = f.Value.Set(fmt.Sprint(short))
		t.Cleanup(func() { _ = f.Value.Set(was) })
	}
}

// A request is what the Store is asked, and the same of the model. Both answer in words; the model
// is given the Store's, of which it takes names and times that only Redis could choose.
type request struct {
	name  string
	store func(ctx context.Context, s *inventory.Store) string
	model func(m *shop, got string) string
}

type run struct {
	store *inventory.Store
	model *shop
}

func (r *run) now(t *rapid.T) int64 {
	now, err := r.store.Client().Redis().Time(context.Background()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now.UnixMilli()
}

// ask asks qs in one call, where they are several, and returns the answers and the orders in which
// the model may take qs.
func (r *run) ask(qs []request) (got []string, orders [][]int) {
	got = make([]string, len(qs))
	var all []func()
	var came []int
	for i, q := range qs {
		all = append(all, func() { got[i] = q.store(context.Background(), r.store) })
		came = append(came, i)
	}
	if len(qs) == 1 {
		all[0]()
		return got, [][]int{came}
	}
	// Where carts want the same last units it is the order of arrival that counts.
	return got, [][]int{r.store.Together(r.model.location, all), came}
}

// step asks qs, as ask does.
func (r *run) step(t *rapid.T, qs ...request) {
	before := r.now(t)
	got, orders := r.ask(qs)
	var names []string
	for i, q := range qs {
		t.Logf("%s = %s", q.name, got[i])
		names = append(names, q.name)
	}
	if slices.Contains(got, late) {
		t.Skip("this machine is overloaded: nobody knows what was done")
	}
	b := audit(t, r.store, r.model.location)

	news := b.entries[len(r.model.ledger):]
	var expired []entry // the first one of each reservation
	for _, e := range news {
		if e.kind == "expire" && (len(expired) == 0 || expired[len(expired)-1].reservation != e.reservation) {
			expired = append(expired, e)
		}
	}
	var wants []string
	for _, order := range orders {
		for first := range len(expired) + 1 { // so many expired before the requests, the others after them
			m := r.model.clone()
			if len(m.ledger) == 0 && len(news) > 0 {
				m.next = news[0].number
			}
			m.expire(t, expired[:first])
			want := make([]string, len(qs))
			for _, i := range order {
				want[i] = qs[i].model(m, got[i])
			}
			m.expire(t, expired[first:])
			differs := m.differs(b)
			if differs == "" && slices.Equal(want, got) {
				r.model = m
				r.late(t, before)
				return
			}
			wants = append(wants, fmt.Sprintf("%q%s", want, differs))
		}
	}
	t.Fatalf("%s\n got %q\nwant %s", strings.Join(names, "\n"), got, strings.Join(wants, "\n  or "))
}

// late finds what was due before a request, and still is after it; by [audit] open holds are due.
func (r *run) late(t *rapid.T, before int64) {
	key := r.store.KeysOf(r.model.location)[3]
	due, err := r.store.Client().Redis().ZRangeByScore(context.Background(), key, &redis.ZRangeBy{Min: "-inf", Max: fmt.Sprint(before)}).Result()
	if err != nil || len(due) > 0 {
		t.Fatalf("%q were due before %d and still are, %v", due, before, err)
	}
}

// wait lets the hold that ends first end, or all that do.
func (r *run) wait(t *rapid.T) {
	var ends []int64
	for _, v := range r.model.reservations {
		if v.status == 'h' && v.short {
			ends = append(ends, v.expires)
		}
	}
	if len(ends) == 0 {
		return
	}
	until := slices.Min(ends)
	if rapid.Bool().Draw(t, "all") {
		until = slices.Max(ends)
	}
	for r.now(t) < until {
		time.Sleep(time.Millisecond)
	}
}

var (
	skus  = []string{"a", "b", "c"}
	users = []string{"", "alice", "bob"}
	texts = []string{"", "why not", "a  b "}
)

// requests draw one each.
var requests = map[string]func(t *rapid.T, m *shop) request{
	"set": func(t *rapid.T, m *shop) request {
		sku, o := rapid.SampledFrom(skus).Draw(t, "sku"), drawOptions(t)
		set := inventory.Set{
			Quantity: rapid.Int64Range(0, 12).Draw(t, "quantity"), Force: rapid.Bool().Draw(t, "force"),
			Reason: rapid.SampledFrom(texts).Draw(t, "reason"),
		}
		switch rapid.IntRange(0, 3).Draw(t, "version") {
		case 0:
			set.Version = new(int64)
		case 1:
			set.Version = new(int64)
			if r := m.rows[sku]; r != nil {
				*set.Version = r.version
			}
		}
		name := fmt.Sprintf("Set(%s, %d, force %t, version %s, %q, %+v)", sku, set.Quantity, set.Force, version(set.Version), set.Reason, o)
		return request{name, func(ctx context.Context, s *inventory.Store) string {
			return stockText(s.Set(ctx, m.location, sku, set, o))
		}, func(m *shop, _ string) string {
			return m.once(o, name, func() (string, bool) { return m.set(sku, set, o.By) })
		}}
	},
	"adjust": func(t *rapid.T, m *shop) request {
		sku, o := rapid.SampledFrom(skus).Draw(t, "sku"), drawOptions(t)
		delta := rapid.Int64Range(-6, 6).Filter(func(n int64) bool { return n != 0 }).Draw(t, "delta")
		reason := rapid.SampledFrom(texts).Draw(t, "reason")
		name := fmt.Sprintf("Adjust(%s, %d, %q, %+v)", sku, delta, reason, o)
		return request{name, func(ctx context.Context, s *inventory.Store) string {
			return stockText(s.Adjust(ctx, m.location, sku, delta, reason, o))
		}, func(m *shop, _ string) string {
			return m.once(o, name, func() (string, bool) { return m.adjust(sku, delta, reason, o.By) })
		}}
	},
	"reserve": func(t *rapid.T, m *shop) request {
		ttl := rapid.SampledFrom([]time.Duration{time.Millisecond, 5 * time.Millisecond, 40 * time.Millisecond, time.Hour, time.Hour}).Draw(t, "ttl")
		return reserve(m, drawItems(t, 1), ttl, drawOptions(t))
	},
	"hold": func(t *rapid.T, m *shop) request { // simple ones, many of them alike
		it := dray.Item{SKU: rapid.SampledFrom(skus).Draw(t, "sku"), Quantity: rapid.Int64Range(1, 2).Draw(t, "quantity")}
		ttl := rapid.SampledFrom([]time.Duration{20 * time.Millisecond, 20 * time.Millisecond, time.Hour}).Draw(t, "ttl")
		return reserve(m, []dray.Item{it}, ttl, inventory.Options{By: rapid.SampledFrom(users[:2]).Draw(t, "by")})
	},
	"commit":  func(t *rapid.T, m *shop) request { return drawResolve(t, m, "Commit", 'c') },
	"release": func(t *rapid.T, m *shop) request { return drawResolve(t, m, "Release", 'r') },
	"extend": func(t *rapid.T, m *shop) request {
		id, o := drawReservation(t, m), drawOptions(t)
		ttl := rapid.SampledFrom([]time.Duration{5 * time.Millisecond, 20 * time.Millisecond, time.Hour, dray.MaxHold}).Draw(t, "ttl")
		name := fmt.Sprintf("Extend(%s, %v, %+v)", id, ttl, o)
		return request{name, func(ctx context.Context, s *inventory.Store) string {
			return reservationText(s.ExtendFor(ctx, id, ttl, o))
		}, func(m *shop, got string) string {
			refused := m.closed(id)
			return m.once(o, name, func() (string, bool) {
				if refused != "" {
					return refused, false
				}
				v := m.reservations[id]
				v.expires, v.short = expiresIn(got), ttl < time.Second
				return m.reservation(id), true
			})
		}}
	},
	"get": func(t *rapid.T, m *shop) request {
		sku := rapid.SampledFrom(skus).Draw(t, "sku")
		return request{"Get(" + sku + ")", func(ctx context.Context, s *inventory.Store) string {
			return stockText(s.Get(ctx, m.location, sku))
		}, func(m *shop, _ string) string { return m.stock(sku) }}
	},
	"list": func(t *rapid.T, m *shop) request {
		return request{"List()", func(ctx context.Context, s *inventory.Store) string {
			page, next, err := s.List(ctx, m.location, "", 1000)
			var all []string
			for _, stock := range page {
				all = append(all, stockText(stock, nil))
			}
			return fmt.Sprint(all, next, err)
		}, func(m *shop, _ string) string {
			var all []string
			for _, sku := range sorted(m.rows) {
				all = append(all, m.stock(sku))
			}
			return fmt.Sprint(all, "", nil)
		}}
	},
	"reservation": func(t *rapid.T, m *shop) request {
		id := drawReservation(t, m)
		return request{"Reservation(" + id + ")", func(ctx context.Context, s *inventory.Store) string {
			return reservationText(s.Reservation(ctx, id, inventory.Options{}))
		}, func(m *shop, _ string) string {
			if m.reservations[id] == nil {
				return string(dray.CodeNotFound)
			}
			return m.reservation(id)
		}}
	},
	"ledger": func(t *rapid.T, m *shop) request {
		sku, limit := rapid.SampledFrom(skus).Draw(t, "sku"), rapid.IntRange(1, 9).Draw(t, "limit")
		return request{fmt.Sprintf("Ledger(%s, %d)", sku, limit), func(ctx context.Context, s *inventory.Store) string {
			return ledgerText(limit, func(cursor string) ([]dray.LedgerEntry, string, error) {
				return s.Ledger(ctx, m.location, sku, cursor, limit)
			})
		}, func(m *shop, _ string) string {
			if m.rows[sku] == nil {
				return string(dray.CodeNotFound)
			}
			return m.entries(func(e entry) bool { return e.sku == sku })
		}}
	},
	"reservation ledger": func(t *rapid.T, m *shop) request {
		id, limit := drawReservation(t, m), rapid.IntRange(1, 9).Draw(t, "limit")
		return request{fmt.Sprintf("ReservationLedger(%s, %d)", id, limit), func(ctx context.Context, s *inventory.Store) string {
			return ledgerText(limit, func(cursor string) ([]dray.LedgerEntry, string, error) {
				return s.ReservationLedger(ctx, id, cursor, limit)
			})
		}, func(m *shop, _ string) string {
			if m.reservations[id] == nil {
				return string(dray.CodeNotFound)
			}
			return m.entries(func(e entry) bool { return e.reservation == id })
		}}
	},
}

func drawOptions(t *rapid.T) inventory.Options {
	return inventory.Options{
		Key: rapid.SampledFrom([]string{"", "", "", "", "", "", "k 1", "k 2"}).Draw(t, "key"),
		By:  rapid.SampledFrom(users).Draw(t, "by"),
	}
}

func drawItems(t *rapid.T, least int) []dray.Item {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) dray.Item {
		return dray.Item{SKU: rapid.SampledFrom([]string{"a", "a", "a", "b", "b", "b", "c", "c", "c", "ghost"}).Draw(t, "sku"), Quantity: rapid.Int64Range(1, 3).Draw(t, "quantity")}
	}), least, 4).Draw(t, "items")
}

// drawReservation gives mostly one that is held.
func drawReservation(t *rapid.T, m *shop) string {
	var held []string
	for _, id := range m.ids {
		if m.reservations[id].status == 'h' {
			held = append(held, id)
		}
	}
	from := append([]string{m.location + ".unknown"}, m.ids...)
	if len(held) > 0 && rapid.IntRange(0, 3).Draw(t, "held") > 0 {
		from = held
	}
	return from[rapid.IntRange(0, len(from)-1).Draw(t, "which")]
}

func reserve(m *shop, items []dray.Item, ttl time.Duration, o inventory.Options) request {
	name := fmt.Sprintf("Reserve(%v, %v, %+v)", items, ttl, o)
	print := fmt.Sprint(addUp(items), ttl)
	return request{name, func(ctx context.Context, s *inventory.Store) string {
		return reservationText(s.ReserveFor(ctx, m.location, items, ttl, o))
	}, func(m *shop, got string) string {
		return m.once(o, print, func() (string, bool) { return m.reserve(addUp(items), ttl, o.By, got) })
	}}
}

func drawResolve(t *rapid.T, m *shop, method string, how byte) request {
	id, items, o := drawReservation(t, m), drawItems(t, 0), drawOptions(t)
	if rapid.Bool().Draw(t, "all") {
		items = nil
	}
	name := fmt.Sprintf("%s(%s, %v, %+v)", method, id, items, o)
	print := fmt.Sprint(method, id, addUp(items))
	return request{name, func(ctx context.Context, s *inventory.Store) string {
		if how == 'c' {
			return reservationText(s.Commit(ctx, id, items, o))
		}
		return reservationText(s.Release(ctx, id, items, o))
	}, func(m *shop, _ string) string {
		refused := m.closed(id)
		return m.once(o, print, func() (string, bool) {
			if refused != "" {
				return refused, false
			}
			return m.resolve(id, addUp(items), how, o.By)
		})
	}}
}

func addUp(items []dray.Item) map[string]int64 {
	sum := map[string]int64{}
	for _, it := range items {
		sum[it.SKU] += it.Quantity
	}
	return sum
}

// late is the answer that Redis did not give within 2 s.
const late = "no answer in time"

// The answers in words.

func refusal(err error) string {
	text := string(dray.CodeOf(err))
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return late
	}
	if errors.Is(err, dray.ErrUnavailable) || text == string(dray.CodeInternal) {
		return err.Error() // never expected
	}
	if e, ok := errors.AsType[*dray.Error](err); ok {
		for _, d := range e.Details {
			text += fmt.Sprintf(" %s %d %d", d.SKU, *d.Requested, *d.Available)
		}
	}
	return text
}

func stockText(s dray.Stock, err error) string {
	if err != nil {
		return refusal(err)
	}
	return fmt.Sprintf("%s %d %d %d version %d", s.SKU, s.Quantity, s.Reserved, s.Available, s.Version)
}

func reservationText(r dray.Reservation, err error) string {
	if err != nil {
		return refusal(err)
	}
	return fmt.Sprintf("%s %s %v %d", r.Reservation, r.Status, r.Items, r.ExpiresAt.UnixMilli())
}

// expiresIn and idIn take what Redis chose out of an answer.
func expiresIn(text string) int64 {
	i := strings.LastIndexByte(text, ' ') + 1
	if text[i:] == "" || strings.Trim(text[i:], "0123456789") != "" {
		return 0
	}
	return ints(text[i:])[0]
}

func idIn(text string) string { id, _, _ := strings.Cut(text, " "); return id }

func ledgerText(limit int, read func(cursor string) ([]dray.LedgerEntry, string, error)) string {
	var all []string
	for cursor := ""; ; {
		page, next, err := read(cursor)
		if err != nil {
			return refusal(err)
		}
		if len(page) > limit {
			return "a page over its limit"
		}
		for _, e := range page {
			all = append(all, entryText(e))
		}
		if cursor = next; next == "" {
			return strings.Join(all, "\n")
		}
	}
}

func entryText(e dray.LedgerEntry) string {
	return fmt.Sprintf("%d %s %s %v %v %s by %q because %q", e.Entry, e.Kind, e.SKU, e.Quantity, e.Reserved, e.Reservation, e.By, e.Reason)
}

func version(v *int64) string {
	if v == nil {
		return "any"
	}
	return fmt.Sprint(*v)
}

// entries are those of the model that match, newest first, in words.
func (m *shop) entries(match func(entry) bool) string {
	var all []string
	for _, e := range slices.Backward(m.ledger) {
		if match(e) {
			all = append(all, entryText(dray.LedgerEntry{Entry: e.number, Kind: dray.LedgerKind(e.kind), SKU: e.sku, Quantity: e.quantity,
				Reserved: e.reserve, Reservation: e.reservation, By: e.by, Reason: e.reason}))
		}
	}
	return strings.Join(all, "\n")
}
