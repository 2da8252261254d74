package inventory_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
)

// seed is DRAY_SEED, or a new one; it is printed when the test fails.
func seed(t *testing.T) uint64 {
	s := rand.Uint64()
	if text := os.Getenv("DRAY_SEED"); text != "" {
		var err error
		if s, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("DRAY_SEED: %v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with: DRAY_SEED=%d go test ./realtime/inventory -run '%s'", s, t.Name())
		}
	})
	return s
}

// Random changes on one node, some at once; watchers of every shape come, change and go on
// another, and feeds are cut. After each step every watcher's rows are the Store's.
func TestRowsEqualTheStore(t *testing.T) {
	onStages(t, func(t *testing.T, s stage, cut func()) {
		m := &model{stage: s, t: t, cut: cut, rnd: rand.New(rand.NewPCG(seed(t), 1))}
		defer func() {
			for _, w := range m.watchers {
				w.close()
			}
		}()
		steps := 120
		if testing.Short() {
			steps = 30
		}
		for step := range steps {
			did := m.step()
			for _, w := range m.watchers {
				settle(t, fmt.Sprintf("step %d: %s: watcher %s", step, did, w.name), func() string { return w.differs(t, s.store) })
			}
		}
	})
}

type model struct {
	stage
	t        *testing.T
	cut      func()
	rnd      *rand.Rand
	watchers []*watcher
	holds    []string // reservations, some of which are over
}

func (m *model) location() string { return []string{"north", "south", "empty:1"}[m.rnd.IntN(3)] }
func (m *model) sku() string      { return "sku-" + strconv.Itoa(m.rnd.IntN(8)) }

func (m *model) shape() dray.StockShape {
	s := dray.StockShape{Location: m.location(), Low: int64(m.rnd.IntN(6))}
	if m.rnd.IntN(2) == 0 {
		for range 1 + m.rnd.IntN(4) {
			s.SKUs = append(s.SKUs, m.sku())
		}
	}
	return s
}

func (m *model) step() (did string) {
	switch k := m.rnd.IntN(12); {
	case k == 0 && len(m.watchers) > 5:
		i := m.rnd.IntN(len(m.watchers))
		did = "close " + m.watchers[i].name
		m.watchers[i].close()
		m.watchers = slices.Delete(m.watchers, i, i+1)
	case k < 2:
		shape := m.shape()
		interval := []time.Duration{0, 20 * time.Millisecond}[m.rnd.IntN(2)]
		m.watchers = append(m.watchers, watch(m.t, m.hub, shape, interval))
		did = fmt.Sprint("watch ", shape, interval)
	case k < 4 && len(m.watchers) > 0:
		w, shape := m.watchers[m.rnd.IntN(len(m.watchers))], m.shape()
		if m.rnd.IntN(3) > 0 {
			shape.Location = w.shape.Location
		}
		did = fmt.Sprint("update ", w.name, " to ", shape)
		w.update(m.t, shape)
	case k == 4:
		m.cut()
		did = "cut and " + m.changes()
	default:
		did = m.changes()
	}
	return did
}

// changes are some at once.
func (m *model) changes() (did string) {
	var all sync.WaitGroup
	for range 1 + m.rnd.IntN(12) {
		what, f := m.change()
		did += what + ", "
		all.Go(func() {
			switch err := f(); dray.CodeOf(err) {
			case "", dray.CodeNotFound, dray.CodeInsufficientStock, dray.CodeBelowReserved, dray.CodeExceedsHeld,
				dray.CodeAlreadyCommitted, dray.CodeAlreadyReleased, dray.CodeReservationExpired, dray.CodeBadRequest:
			default:
				m.t.Errorf("%s: %v", what, err)
			}
		})
	}
	all.Wait()
	return did
}

// change is one that may well be refused.
func (m *model) change() (what string, f func() error) {
	ctx, location, sku, n := m.t.Context(), m.location(), m.sku(), int64(m.rnd.IntN(8))
	hold := location + ".none"
	if len(m.holds) > 0 {
		hold = m.holds[m.rnd.IntN(len(m.holds))]
	}
	part := []dray.Item{{SKU: sku, Quantity: 1}}
	if m.rnd.IntN(2) == 0 {
		part = nil
	}
	switch m.rnd.IntN(6) {
	case 0, 1:
		force := m.rnd.IntN(3) == 0
		return fmt.Sprintf("set %s %s %d %v", location, sku, n, force), func() error {
			_, err := m.store.Set(ctx, location, sku, inventory.Set{Quantity: n, Force: force}, inventory.Options{})
			return err
		}
	case 2:
		return fmt.Sprintf("adjust %s %s %d", location, sku, n-4), func() error {
			_, err := m.store.Adjust(ctx, location, sku, n-4, "", inventory.Options{})
			return err
		}
	case 3: // not at once with others: its id is needed later
		ttl := []time.Duration{time.Second, time.Hour}[m.rnd.IntN(2)]
		items := []dray.Item{{SKU: sku, Quantity: 1 + n/2}, {SKU: m.sku(), Quantity: 1}}
		r, err := m.store.Reserve(ctx, location, items, ttl, inventory.Options{})
		if err == nil {
			m.holds = append(m.holds, r.Reservation)
		}
		return fmt.Sprintf("reserve %s %v %v", location, items, ttl), func() error { return err }
	case 4:
		return fmt.Sprint("commit ", hold, part), func() error {
			_, err := m.store.Commit(ctx, hold, part, inventory.Options{})
			return err
		}
	}
	return fmt.Sprint("release ", hold, part), func() error {
		_, err := m.store.Release(ctx, hold, part, inventory.Options{})
		return err
	}
}
