package inventory

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dray"
)

// An op is one request on its way through apply.lua.
type op struct {
	kind     byte // a letter of apply.lua
	sku      string
	id       string // of a reservation: a new one for h, else the one meant
	ref      ref
	items    []dray.Item
	ttl      time.Duration
	quantity int64
	reserved int64
	told     *dray.Stock // what the ledger knows, for f
	version  string
	flag     bool // force of a set, final of a hold
	reason   string

	answer string // what came back
	err    error
	acked  int // replicas that have it
	done   chan struct{}
	state  atomic.Int32
}

// States of an op: its caller may give it up until it is sent.
const (
	opWaiting int32 = iota
	opSent
	opGivenUp
)

// A ref is what an op carries of its [Options].
type ref struct {
	by       string
	key      string // field of keys, "" for none
	print    string // fingerprint of the request
	replicas int
}

// newRef hashes caller and key to the name under which the answer is kept, and the request to a
// fingerprint. Neither lets a client's bytes into Redis.
func newRef(o Options, request func(b []byte) []byte) ref {
	r := ref{by: anybody(o.By), replicas: o.Replicas}
	if o.Key != "" {
		r.key = hash(append(append(append([]byte(nil), o.By...), 0), o.Key...), 16)
		r.print = hash(request(nil), 12)
	}
	return r
}

func hash(b []byte, n int) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:n])
}

// entropy holds *bufio.Reader of rand.Reader: asking the kernel for each id costs more than the id.
var entropy = sync.Pool{New: func() any { return bufio.NewReaderSize(rand.Reader, 640) }}

// newReservation is an id that cannot be guessed: 80 bits.
func newReservation(location string) string {
	r := entropy.Get().(*bufio.Reader)
	defer entropy.Put(r)
	secret, _ := r.Peek(10) // crypto/rand does not fail
	id := make([]byte, 0, len(location)+17)
	id = base32.StdEncoding.AppendEncode(append(append(id, location...), '.'), secret)
	_, _ = r.Discard(len(secret))
	return string(id)
}

func appendItems(b []byte, items []dray.Item) []byte {
	for _, it := range items {
		b = append(append(append(b, it.SKU...), ' '), strconv.FormatInt(it.Quantity, 10)...)
		b = append(b, '\n')
	}
	return b
}

// A set collects names, each once.
type set struct {
	list  []string
	place map[string]int // of each, from 1 on
}

// add is false for a name that is there, and for "".
func (n *set) add(name string) bool {
	if _, twice := n.place[name]; twice || name == "" {
		return false
	}
	if n.place == nil {
		n.place = make(map[string]int, 32)
	}
	n.list = append(n.list, name)
	n.place[name] = len(n.list)
	return true
}

// An encoder writes ops as the arguments of apply.lua.
type encoder struct {
	ordered         bool      // nothing is simple
	simple          []*op     // holds of one line without a key
	groups          [][][]*op // simple, group by group and run by run
	rest            []*op
	skus, keys, ids set
	ops             []string
}

func (e *encoder) put(words ...string) { e.ops = append(e.ops, words...) }

func (e *encoder) items(items []dray.Item) {
	for _, it := range items {
		e.put(it.SKU, number(it.Quantity))
	}
	e.put("")
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func (e *encoder) add(o *op) {
	if !e.ordered && o.kind == 'h' && len(o.items) == 1 && o.ref.key == "" {
		e.simple = append(e.simple, o)
		return
	}
	e.rest = append(e.rest, o)
	e.skus.add(o.sku)
	e.keys.add(o.ref.key)
	if o.kind != 'h' {
		e.ids.add(o.id)
	}
	e.put(kindText[o.kind : o.kind+1])
	switch o.kind {
	case 'h':
		e.hold(o)
	case 'c', 'r':
		e.put(o.id, o.ref.key, o.ref.print, o.ref.by)
		e.items(o.items)
	case 'e':
		e.put(o.id, o.ref.key, o.ref.print, number(o.ttl.Milliseconds()))
	case 'p':
		e.put(o.id, o.sku, number(o.quantity), o.ref.by)
	case 's':
		e.put(o.sku, o.ref.key, o.ref.print, number(o.quantity), flag(o.flag), o.version, o.ref.by, o.reason)
	case 'a':
		e.put(o.sku, o.ref.key, o.ref.print, number(o.quantity), o.ref.by, o.reason)
	case 'f':
		e.put(o.sku, number(o.quantity), number(o.reserved), o.version, number(o.told.Quantity), number(o.told.Reserved), o.ref.by, o.reason)
	case 'g':
		e.put(o.sku)
	case 'q':
		e.put(o.id)
	}
}

// hold writes a hold, with the end of its record and its lines of the ledger ready made: that
// is cheaper here than in Lua.
func (e *encoder) hold(o *op) {
	key := cmp.Or(o.ref.key, "-")
	tail := make([]byte, 0, 64+160*len(o.items))
	tail = append(append(append(tail, o.ref.by...), ' '), key...)
	for _, it := range o.items {
		tail = append(append(append(tail, '\n'), it.SKU...), ' ')
		tail = append(strconv.AppendInt(tail, it.Quantity, 10), " 0 0"...)
	}
	e.put(number(o.ttl.Milliseconds()), o.ref.key, o.ref.print, flag(o.flag), o.id, string(tail))
	for _, it := range o.items {
		quantity := number(it.Quantity)
		e.skus.add(it.SKU)
		e.put(it.SKU, quantity, "hold "+it.SKU+" 0 "+quantity+" "+o.id+" 0 "+o.ref.by+" ")
	}
	e.put("")
}

// byGroup orders simple holds by what those of a group have in common; byRun, within it, by SKU.
func byGroup(a, b *op) int {
	return cmp.Or(cmp.Compare(a.ttl, b.ttl), cmp.Compare(a.ref.by, b.ref.by), cmp.Compare(a.items[0].Quantity, b.items[0].Quantity))
}

func byRun(a, b *op) int {
	return cmp.Or(byGroup(a, b), cmp.Compare(a.items[0].SKU, b.items[0].SKU))
}

// parts yields the parts of sorted ops that are equal.
func parts(ops []*op, compare func(a, b *op) int) iter.Seq[[]*op] {
	return func(yield func([]*op) bool) {
		for len(ops) > 0 {
			n := 1
			for n < len(ops) && compare(ops[0], ops[n]) == 0 {
				n++
			}
			if !yield(ops[:n]) {
				return
			}
			ops = ops[n:]
		}
	}
}

// kindText holds the text of each kind.
var kindText = func() string {
	b := make([]byte, 128)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}()

// group sorts the simple holds into groups, and returns them as arguments. Of a group singles come first: a
// run of one hold whose SKU nothing before it names.
func (e *encoder) group() []string {
	slices.SortStableFunc(e.simple, byRun)
	n := len(e.simple)
	alone := n > 0 && len(e.rest) == 0 && byGroup(e.simple[0], e.simple[n-1]) == 0 // no SKU comes twice
	args := slices.Grow([]string{""}, 8+n)
	for group := range parts(e.simple, byGroup) {
		var singles, longer [][]*op
		place := len(e.skus.list) + 1
		for run := range parts(group, byRun) {
			if sku := run[0].items[0].SKU; len(run) == 1 && (alone || e.skus.add(sku)) {
				if alone {
					e.skus.list = append(e.skus.list, sku)
				}
				singles = append(singles, run)
			} else {
				longer = append(longer, run)
			}
		}
		o := group[0]
		args = append(args, number(o.ttl.Milliseconds()), o.ref.by, number(o.items[0].Quantity),
			strconv.Itoa(len(singles)), strconv.Itoa(place), strconv.Itoa(len(longer)))
		for _, run := range singles {
			args = append(args, run[0].id)
		}
		for _, run := range longer {
			sku := run[0].items[0].SKU
			e.skus.add(sku)
			args = append(args, strconv.Itoa(e.skus.place[sku]), strconv.Itoa(len(run)))
			for _, o := range run {
				args = append(args, o.id)
			}
		}
		e.groups = append(e.groups, append(singles, longer...))
	}
	args[0] = strconv.Itoa(len(e.groups))
	return args
}

// answers gives each op its own of the answers of a call; false when they are not as many as they must be.
func (e *encoder) answers(texts []string) bool {
	for _, runs := range e.groups {
		if len(texts) == 0 {
			return false
		}
		ends, short, _ := strings.Cut(texts[0], "\n")
		texts = texts[1:]
		ends = "k" + ends
		for _, run := range runs {
			for _, o := range run {
				o.answer = ends
			}
		}
		for line := range strings.Lines(short) {
			w, ok := fields(strings.TrimSuffix(line, "\n"), 3)
			var run, held int64
			if !ok || !numbers(w, &run, &held) || run < 1 || run > int64(len(runs)) || held >= int64(len(runs[run-1])) {
				return false
			}
			for _, o := range runs[run-1][held:] {
				switch it := o.items[0]; w[2][0] {
				case 'S':
					o.answer = fmt.Sprintf("S%s %d %s\n", it.SKU, it.Quantity, w[2][1:])
				case 'U':
					o.answer = "U" + it.SKU
				default:
					o.answer = w[2]
				}
			}
		}
	}
	if len(texts) != len(e.rest) {
		return false
	}
	for i, o := range e.rest {
		o.answer = texts[i]
	}
	return true
}

// args are all arguments of a call, head first. They are pointers into one slice: a string in an
// interface would be an allocation each.
func (e *encoder) args(head []string) []any {
	groups := e.group()
	texts := make([]string, 0, len(head)+6+len(e.skus.list)+len(groups)+len(e.keys.list)+len(e.ids.list)+len(e.ops))
	texts = append(append(texts, head...), strconv.Itoa(len(e.rest)), strconv.Itoa(len(e.skus.list)+1))
	texts = append(append(append(texts, e.skus.list...), "#"), groups...)
	for _, n := range [...]*set{&e.keys, &e.ids} {
		texts = append(append(texts, strconv.Itoa(len(n.list))), n.list...)
	}
	texts = append(texts, e.ops...)
	args := make([]any, len(texts))
	for i := range texts {
		args[i] = &texts[i]
	}
	return args
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// again is the answer of an op that is to be sent once more.
const again = "A"

// failure turns an answer that is no success into its error.
func failure(answer string) error {
	rest := answer[1:]
	switch answer[0] {
	case 'k', '=':
		return nil
	case 'N':
		return dray.ErrNotFound
	case 'C':
		return dray.ErrAlreadyCommitted
	case 'R':
		return dray.ErrAlreadyReleased
	case 'E':
		return dray.ErrReservationExpired
	case 'M':
		return dray.ErrIdempotencyMismatch
	case 'B':
		return &dray.Error{Code: dray.CodeBelowReserved, Message: "quantity is below the " + rest + " units that are reserved"}
	case 'V':
		return &dray.Error{Code: dray.CodeVersionConflict, Message: "the current version is " + rest}
	case 'T':
		return dray.FieldError(dray.CodeBadRequest, "delta", "the quantity would be over %d", dray.MaxQuantity)
	case 'S', '-':
		return shortage(dray.CodeInsufficientStock, "not enough stock", strings.TrimPrefix(rest, " "))
	case 'X':
		return shortage(dray.CodeExceedsHeld, "more than is held", rest)
	}
	return errUnreadable
}

var errUnreadable = dray.Errorf(dray.CodeUnavailable, "a record of the stock cannot be read")

// shortage makes an error with a detail for each line "<sku> <requested> <available>".
func shortage(code dray.Code, message, lines string) error {
	e := &dray.Error{Code: code, Message: message}
	for line := range strings.Lines(lines) {
		w, ok := fields(strings.TrimSuffix(line, "\n"), 3)
		var requested, available int64
		if ok && numbers(w[1:], &requested, &available) {
			e.Details = append(e.Details, dray.Detail{SKU: w[0], Requested: &requested, Available: &available})
		}
	}
	return e
}
