package inventory_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/realtime/inventory"
)

// Books are all that Redis holds of a location, read at one moment and past the Store's own
// readers, which are under test.
type books struct {
	rows    map[string]row    // SKU -> counters
	records map[string]record // reservation -> record
	keys    map[string]string // field -> answer
	entries []entry           // the whole ledger, oldest first
}

type row struct{ quantity, reserved, version int64 }

type record struct {
	status        string
	made, expires int64
	by, key       string
	lines         map[string][3]int64 // SKU -> quantity, committed, released
}

type entry struct {
	number, at        int64
	kind, sku         string
	quantity, reserve dray.Step
	reservation, by   string
	reason            string
}

// A failer is a *testing.T or a *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// audit reads the books of a location and checks what must hold of them at any moment:
//
//   - what a SKU has reserved is the sum of the open holds, and no more than is on hand unless
//     a quantity was forced;
//   - the ledger has no gap, each entry of a SKU begins where the one before ended, and the
//     last one ends at the counters;
//   - each reservation is what its entries say, and is due when it expires;
//   - a key stands for one reservation at most.
func audit(t failer, s *inventory.Store, location string) books {
	t.Helper()
	b, last, due := readBooks(t, s, location)
	reserved := map[string]int64{}
	ofKey := map[string]string{}
	for id, r := range b.records {
		for sku, l := range r.lines {
			if l[1] < 0 || l[2] < 0 || l[1]+l[2] > l[0] || (r.status != "h" && l[1]+l[2] != l[0]) {
				t.Fatalf("%s: line %s of %s is %v, status %s", location, sku, id, l, r.status)
			}
			reserved[sku] += l[0] - l[1] - l[2]
		}
		if r.status == "h" && r.expires > 0 && !slices.Contains(due[id], r.expires) {
			t.Fatalf("%s: %s expires at %d, but is due at %v", location, id, r.expires, due[id])
		}
		if other := ofKey[r.key]; other != "" && r.key != "-" {
			t.Fatalf("%s: one key made %s and %s", location, id, other)
		}
		ofKey[r.key] = id
	}
	forced := false
	sums := map[string]row{}                  // SKU -> where its last entry ended
	lines := map[string]map[string][3]int64{} // reservation -> as record.lines, by the ledger
	for i, e := range b.entries {
		if i > 0 && e.number != b.entries[i-1].number+1 {
			t.Fatalf("%s: entry %d follows entry %d", location, e.number, b.entries[i-1].number)
		}
		if was := sums[e.sku]; was.quantity != e.quantity.Before || was.reserved != e.reserve.Before {
			t.Fatalf("%s: entry %+v does not begin where the one before ended: %+v", location, e, was)
		}
		sums[e.sku] = row{e.quantity.After, e.reserve.After, e.number}
		forced = forced || e.kind == "set" && e.quantity.After < e.reserve.After
		if e.reservation == "" {
			continue
		}
		if lines[e.reservation] == nil {
			lines[e.reservation] = map[string][3]int64{}
		}
		l, n := lines[e.reservation][e.sku], e.reserve.After-e.reserve.Before
		switch e.kind {
		case "hold":
			l[0] += n
		case "commit":
			l[1] -= n
		default:
			l[2] -= n
		}
		lines[e.reservation][e.sku] = l
		if !forced && e.reserve.After > e.quantity.After {
			t.Fatalf("%s: oversold by entry %+v", location, e)
		}
	}
	if n := len(b.entries); n > 0 && b.entries[n-1].number != last {
		t.Fatalf("%s: last entry is %d, counted are %d", location, b.entries[n-1].number, last)
	}
	for sku, r := range b.rows {
		if r != sums[sku] || r.reserved != reserved[sku] || r.quantity < 0 {
			t.Fatalf("%s: counters of %s are %+v, by the ledger %+v, held %d", location, sku, r, sums[sku], reserved[sku])
		}
	}
	for id, r := range b.records {
		if r.expires > 0 && !mapsEqual(r.lines, lines[id]) { // those of Products begin again and again
			t.Fatalf("%s: %s has %v, by the ledger %v", location, id, r.lines, lines[id])
		}
	}
	return b
}

func mapsEqual(a, b map[string][3]int64) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func readBooks(t failer, s *inventory.Store, location string) (b books, last int64, due map[string][]int64) {
	t.Helper()
	k := s.KeysOf(location)
	var stock, holds, keys *redis.MapStringStringCmd
	var dues *redis.ZSliceCmd
	var ledger *redis.XMessageSliceCmd
	_, err := s.Client().Redis().TxPipelined(context.Background(), func(p redis.Pipeliner) error {
		ctx := context.Background()
		stock, holds, keys = p.HGetAll(ctx, k[0]), p.HGetAll(ctx, k[1]), p.HGetAll(ctx, k[2])
		dues, ledger = p.ZRangeWithScores(ctx, k[3], 0, -1), p.XRange(ctx, k[4], "-", "+")
		return nil
	})
	if err != nil {
		t.Fatalf("books of %s: %v", location, err)
	}
	b = books{rows: map[string]row{}, records: map[string]record{}, keys: keys.Val()}
	for sku, text := range stock.Val() {
		if n := ints(text); sku == "#" {
			last = n[0]
		} else {
			b.rows[sku] = row{n[0], n[1], n[2]}
		}
	}
	for id, text := range holds.Val() {
		b.records[id] = readRecord(text)
	}
	due = map[string][]int64{}
	for _, z := range dues.Val() {
		for id := range strings.SplitSeq(z.Member.(string), ",") {
			due[id] = append(due[id], int64(z.Score))
		}
	}
	for _, m := range ledger.Val() {
		b.entries = append(b.entries, readMessage(t, m)...)
	}
	return b, last, due
}

func readRecord(text string) record {
	head, rest, _ := strings.Cut(text, "\n")
	w := strings.Fields(head)
	r := record{status: w[0], made: ints(w[1])[0], expires: ints(w[2])[0], by: w[4], key: w[5], lines: map[string][3]int64{}}
	for line := range strings.Lines(rest) {
		sku, numbers, _ := strings.Cut(line, " ")
		n := ints(numbers)
		r.lines[sku] = [3]int64{n[0], n[1], n[2]}
	}
	return r
}

func readMessage(t failer, m redis.XMessage) (entries []entry) {
	head, text, _ := strings.Cut(m.Values["m"].(string), "\n")
	lines, before, _ := strings.Cut(text, "\n\n")
	number, last, at := ints(head)[0], ints(head)[1], ints(head)[2]
	rows := map[string]row{}
	for pair := range slices.Chunk(strings.Split(before, "\n"), 2) {
		if _, twice := rows[pair[0]]; twice {
			t.Fatalf("message %s tells of %s twice", m.ID, pair[0])
		}
		n := ints(pair[1])
		rows[pair[0]] = row{n[0], n[1], n[2]}
	}
	if !strings.HasPrefix(m.ID, fmt.Sprintf("%d-", number)) {
		t.Fatalf("message %s begins with entry %d", m.ID, number)
	}
	for line := range strings.Lines(lines) {
		w := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 8)
		if len(w) != 8 {
			t.Fatalf("entry %q of message %s", line, m.ID)
		}
		n := ints(w[2] + " " + w[3])
		for reservation := range strings.SplitSeq(w[4], ",") {
			was := rows[w[1]]
			e := entry{number: number, at: at, kind: w[0], sku: w[1], by: strings.Trim(w[6], "*"), reason: w[7],
				quantity: dray.Step{Before: was.quantity, After: was.quantity + n[0]},
				reserve:  dray.Step{Before: was.reserved, After: was.reserved + n[1]}, reservation: strings.Trim(reservation, "*")}
			rows[w[1]] = row{e.quantity.After, e.reserve.After, number}
			entries = append(entries, e)
			number++
		}
	}
	if number != last+1 {
		t.Fatalf("message %s tells %d as its last entry, and ends before %d", m.ID, last, number)
	}
	return entries
}

// ints are the numbers in a text.
func ints(text string) (list []int64) {
	for w := range strings.FieldsSeq(text) {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			panic(err)
		}
		list = append(list, n)
	}
	return list
}

// sorted are the keys of a map in order.
func sorted[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func redisZ(score int64, member string) redis.Z {
	return redis.Z{Score: float64(score), Member: member}
}
