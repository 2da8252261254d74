package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// What one client may do to the others of its location, or of its node.

func TestAWaitForReplicasHoldsUpNobodyElse(t *testing.T) {
	config := redistest.Start(t).Config()
	config.ReadTimeout = 2 * time.Second
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, config), WaitTimeout: time.Second})
	set(t, s, "shop", "milk", 10)
	waited := make(chan error, 1)
	go func() {
		_, err := s.Reserve(context.Background(), "shop", cart("milk", 1), time.Minute, inventory.Options{Replicas: 1})
		waited <- err
	}()
	eventually(t, "it is done, and waits", func() bool {
		return s.Client().Redis().HLen(t.Context(), s.KeysOf("shop")[1]).Val() > 0
	})
	if _, err := s.Reserve(t.Context(), "shop", cart("milk", 1), time.Minute, inventory.Options{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-waited:
		t.Fatalf("a request without replicas was answered after one that waits for a replica (%v)", err)
	default:
	}
	wantCode(t, "Reserve() with a replica", <-waited, dray.ErrDurabilityNotReached)
	wantStock(t, s, "shop", "milk", 10, 2)
}

func TestManyWaitsLeaveConnectionsForOthers(t *testing.T) {
	config := redistest.Start(t).Config()
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, config), WaitTimeout: time.Second})
	var waits sync.WaitGroup
	answered := make(chan error, 64)
	for i := range cap(answered) {
		waits.Go(func() {
			location := "shop-" + strconv.Itoa(i)
			_, err := s.Set(context.Background(), location, "milk", inventory.Set{Quantity: 1}, inventory.Options{Replicas: 16})
			answered <- err
		})
	}
	eventually(t, "somebody waits", func() bool {
		return !strings.Contains(s.Client().Redis().Info(t.Context(), "clients").Val(), "blocked_clients:0")
	})
	if err := s.Client().RunAll(t.Context(), []redisconn.Call{redisconn.Command("PING")})[0].Err(); err != nil {
		t.Fatal(err)
	}
	if len(answered) > 0 {
		t.Errorf("a pipeline waited until a WAIT was over (%v)", <-answered)
	}
	waits.Wait()
}

// Whoever asks for more replicas than the node does leaves room for those who do not.
func TestWaitsForMoreThanTheNodeAsksForHoldUpNoOther(t *testing.T) {
	master := redistest.Start(t)
	redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.Port()))
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, master.Config()), Replicas: 1, WaitTimeout: time.Second})
	info := func(section string) string { return s.Client().Redis().Info(t.Context(), section).Val() }
	eventually(t, "the replica follows", func() bool { return strings.Contains(info("replication"), "state=online") })
	set(t, s, "mine", "milk", 1)
	var waits sync.WaitGroup
	answered := make(chan error, 40)
	for i := range cap(answered) {
		waits.Go(func() {
			location := "shop-" + strconv.Itoa(i)
			_, err := s.Set(context.Background(), location, "milk", inventory.Set{Quantity: 1}, inventory.Options{Replicas: 16})
			answered <- err
		})
	}
	eventually(t, "many wait", func() bool {
		_, after, _ := strings.Cut(info("clients"), "blocked_clients:")
		count, _, _ := strings.Cut(after, "\r\n")
		n, _ := strconv.Atoi(count)
		return n >= 8
	})
	set(t, s, "mine", "milk", 2)
	if len(answered) > 0 {
		t.Errorf("a request for the one replica there is waited until one for sixteen was over (%v)", <-answered)
	}
	waits.Wait()
}

// The script may work through so many lines in a call, whoever holds how many.
func TestACallWithManyLongReservationsIsBounded(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		ctx, none := t.Context(), inventory.Options{}
		var long []dray.Item
		for i := range dray.MaxLines {
			sku := fmt.Sprintf("sku-%03d", i)
			set(t, s, "shop", sku, 1000)
			long = append(long, dray.Item{SKU: sku, Quantity: 1})
		}
		var ids []string
		for range 100 {
			r, err := s.Reserve(ctx, "shop", long, time.Minute, none)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.Reservation)
		}
		var all sync.WaitGroup
		for i, id := range ids {
			all.Go(func() {
				var err error
				switch i % 4 {
				case 0:
					_, err = s.Commit(ctx, id, nil, none)
				case 1:
					_, err = s.Release(ctx, id, nil, inventory.Options{Key: id})
				case 2:
					_, err = s.Extend(ctx, id, time.Hour, none)
				case 3:
					_, err = s.Reservation(ctx, id, none)
				}
				if err != nil {
					t.Errorf("request %d = %v", i, err)
				}
			})
		}
		all.Wait()
		wantStock(t, s, "shop", "sku-042", 975, 50)
		for _, m := range s.Client().Redis().XRange(ctx, s.KeysOf("shop")[4], "-", "+").Val() {
			if lines := strings.Count(m.Values["m"].(string), "\nhold "); lines > 2200 {
				t.Errorf("a call made %d entries", lines)
			}
		}
		found, err := s.Audit(ctx, "shop", false)
		if err != nil || len(found) > 0 {
			t.Errorf("Audit() = %v, %v", found, err)
		}
	})
}

func TestOldEntriesGoByAge(t *testing.T) {
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, redistest.Single(t).Config()), LedgerAge: 50 * time.Millisecond})
	ctx := t.Context()
	set(t, s, "shop", "milk", 1000)
	ledger := s.KeysOf("shop")[4]
	first := s.Client().Redis().XRange(ctx, ledger, "-", "+").Val()[0].ID
	for range 10_000 {
		if _, err := s.Adjust(ctx, "shop", "milk", 1, "", inventory.Options{}); err != nil {
			t.Fatal(err)
		}
		if left := s.Client().Redis().XRangeN(ctx, ledger, "-", "+", 1).Val(); left[0].ID != first {
			return
		}
	}
	t.Fatal("the first entry is still there")
}

func TestALocationMayBeCalledDash(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		place(t, s, "-", 100)
		set(t, s, "-", "milk", 1)
		key := inventory.Options{Key: "k"}
		first, err := s.ReserveNear(t.Context(), center, 1000, cart("milk", 1), time.Minute, key)
		if err != nil || first.Location != "-" {
			t.Fatalf("ReserveNear() = %+v, %v, want -", first, err)
		}
		again, err := s.ReserveNear(t.Context(), center, 1000, cart("milk", 1), time.Minute, key)
		if err != nil || again.Reservation != first.Reservation {
			t.Fatalf("ReserveNear() again = %+v, %v, want %s", again, err, first.Reservation)
		}
	})
}

// Whoever comes second under a key is told of the shortage as the first one was.
func TestAttemptsUnderOneKeyAreAllToldWhatIsShort(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		for i := range 4 {
			place(t, s, "shop-"+strconv.Itoa(i), float64(500*(i+1)))
			set(t, s, "shop-"+strconv.Itoa(i), "milk", 1)
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				_, err := s.ReserveNear(t.Context(), center, 5000, cart("milk", 2), time.Minute, inventory.Options{Key: "k"})
				if !errors.Is(err, dray.ErrInsufficientStock) {
					t.Errorf("ReserveNear() = %v, want ErrInsufficientStock", err)
					return
				}
				if d := dray.AsError(err).Details; len(d) != 1 || d[0].SKU != "milk" || *d[0].Requested != 2 || *d[0].Available != 1 {
					t.Errorf("details = %+v, want 2 of milk, 1 available", d)
				}
			})
		}
		all.Wait()
	})
}

// A page costs what is on it, also far back in the history of a reservation that never ends.
func TestPagesOfALongReservation(t *testing.T) {
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, redistest.Start(t).Config())})
	ctx := t.Context()
	set(t, s, "default", "milk", 1000)
	for range 60 {
		if err := s.Products().Reserve(ctx, "milk", 1); err != nil {
			t.Fatal(err)
		}
	}
	held, err := s.Client().Redis().HKeys(ctx, s.KeysOf("default")[1]).Result()
	if err != nil || len(held) != 1 {
		t.Fatalf("reservations = %v, %v", held, err)
	}
	reads := func() (sum int) {
		stats := s.Client().Redis().Info(ctx, "commandstats").Val()
		for _, m := range regexp.MustCompile(`cmdstat_x(?:rev)?range:calls=(\d+)`).FindAllStringSubmatch(stats, -1) {
			n, _ := strconv.Atoi(m[1])
			sum += n
		}
		return sum
	}
	var numbers []int64
	for cursor := ""; ; {
		before := reads()
		entries, next, err := s.ReservationLedger(ctx, held[0], cursor, 7)
		if err != nil {
			t.Fatal(err)
		}
		if took := reads() - before; took > 8 {
			t.Errorf("a page of %d from %q took %d reads", len(entries), cursor, took)
		}
		for _, e := range entries {
			numbers = append(numbers, e.Entry)
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if len(numbers) != 60 || !slices.IsSortedFunc(numbers, func(a, b int64) int { return int(b - a) }) {
		t.Errorf("entries = %v, want 60, newest first", numbers)
	}
	if _, _, err := s.ReservationLedger(ctx, held[0], "5", 7); err != nil {
		t.Errorf("ReservationLedger() from a number that is none = %v", err)
	}
}
