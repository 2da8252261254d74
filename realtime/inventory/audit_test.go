package inventory_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn/redistest"
)

func TestAuditFindsAndRepairsWhatDiffers(t *testing.T) {
	client := redistest.Open(t, redistest.Single(t).Config())
	s := newStore(t, inventory.Config{Redis: client})
	ctx, none := t.Context(), inventory.Options{}
	set(t, s, "shop", "milk", 10)
	set(t, s, "shop", "bread", 5)
	r, err := s.Reserve(ctx, "shop", cart("milk", 4, "bread", 1), time.Minute, none)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, r.Reservation, cart("milk", 1), none); err != nil {
		t.Fatal(err)
	}
	audit := func(repair bool, want int) []inventory.Difference {
		t.Helper()
		found, err := s.Audit(ctx, "shop", repair)
		if err != nil || len(found) != want {
			t.Fatalf("Audit(%t) = %v, %v, want %d differences", repair, found, err, want)
		}
		return found
	}
	audit(false, 0)
	stock := wantStock(t, s, "shop", "milk", 9, 3)
	key := "{" + client.Tag(0) + "}:inv:shop:stock"
	row := fmt.Sprintf("7 2 %d 1", stock.Version)
	if err := client.HashSet(ctx, key, map[string]string{"milk": row}); err != nil {
		t.Fatal(err)
	}
	audit(false, 2)
	for _, d := range audit(true, 2) {
		if !d.Repaired {
			t.Errorf("%v is not repaired", d)
		}
	}
	wantStock(t, s, "shop", "milk", 9, 3)
	audit(false, 0)
	entries, _, err := s.Ledger(ctx, "shop", "milk", "", 1)
	if err != nil || entries[0].Reason != "audit: counters were 7 on hand, 2 reserved" || entries[0].Quantity != (dray.Step{Before: 9, After: 9}) {
		t.Fatalf("Ledger() = %+v, %v, want the repair", entries, err)
	}
	if err := client.HashSet(ctx, key, map[string]string{"bread": "gibberish"}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Get(ctx, "shop", "bread")
	wantCode(t, "Get() of an unreadable row", err, dray.ErrUnavailable)
	audit(true, 3) // the row, and both of its counters
	wantStock(t, s, "shop", "bread", 5, 1)
	audit(false, 0)
}

func TestFollowTellsEveryEntryOnce(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		set(t, s, "shop", "milk", 1000)
		done := errors.New("done")
		var entries []dray.LedgerEntry
		took := make(chan error, 1)
		go func() {
			took <- s.Follow(ctx, "shop", 0, func(e dray.LedgerEntry) error {
				if entries = append(entries, e); len(entries) == 151 {
					return done
				}
				return nil
			})
		}()
		for range 150 {
			if _, err := s.Reserve(ctx, "shop", cart("milk", 1), time.Minute, inventory.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-took; !errors.Is(err, done) {
			t.Fatalf("Follow() = %v", err)
		}
		for i, e := range entries {
			if e.Entry != entries[0].Entry+int64(i) || e.Reserved.After != int64(i) {
				t.Fatalf("entry %d = %+v", i, e)
			}
		}
		// from the middle on
		var rest []dray.LedgerEntry
		err := s.Follow(ctx, "shop", entries[75].Entry, func(e dray.LedgerEntry) error {
			if rest = append(rest, e); len(rest) == 75 {
				return done
			}
			return nil
		})
		if !errors.Is(err, done) || rest[0].Entry != entries[76].Entry {
			t.Fatalf("Follow() from the middle = %v, %+v", err, rest)
		}
	})
}

func TestLedgerIsCutToItsLength(t *testing.T) {
	client := redistest.Open(t, redistest.Single(t).Config())
	s := newStore(t, inventory.Config{Redis: client, LedgerLength: 500})
	ctx := t.Context()
	first := set(t, s, "shop", "milk", 10_000)
	for range 1500 {
		if _, err := s.Adjust(ctx, "shop", "milk", 1, "", inventory.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	var cut *inventory.CutError
	err := s.Follow(ctx, "shop", first.Version, func(dray.LedgerEntry) error { return nil })
	if !errors.As(err, &cut) || cut.From != first.Version+1 || cut.To < first.Version+250 {
		t.Fatalf("Follow() = %v, want a cut of at least 250 entries", err)
	}
	if found, err := s.Audit(ctx, "shop", false); err != nil || len(found) > 0 {
		t.Fatalf("Audit() of a ledger that was cut = %v, %v", found, err)
	}
	n, cursor := 0, ""
	for {
		page, next, err := s.Ledger(ctx, "shop", "milk", cursor, 100)
		if err != nil {
			t.Fatal(err)
		}
		if n, cursor = n+len(page), next; next == "" {
			break
		}
	}
	// it is looked at every 512 entries, and whole nodes of the stream go
	if n < 500 || n > 500+512+200 {
		t.Fatalf("%d entries are kept, want 500 and a little", n)
	}
}

// Entries of a ledger go to a file, a line each; after a restart it goes on behind the last one.
func ExampleStore_Follow() {
	dir, _ := os.MkdirTemp("", "ledger")
	defer os.RemoveAll(dir)
	file, err := os.OpenFile(filepath.Join(dir, "shop.jsonl"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	var last dray.LedgerEntry // number 0: from the beginning
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if err := last.UnmarshalJSON(lines.Bytes()); err != nil {
			panic(err)
		}
	}
	s, stop := exampleStore()
	defer stop()
	enough := errors.New("enough")
	err = s.Follow(context.Background(), "shop", last.Entry, func(e dray.LedgerEntry) error {
		if _, err := file.Write(append(e.AppendJSON(nil), '\n')); err != nil {
			return err
		}
		fmt.Println(e.Kind, e.SKU, e.Quantity.After)
		if e.Kind == dray.LedgerAdjust {
			return enough
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// set milk 10
	// adjust milk 12
	// enough
}
