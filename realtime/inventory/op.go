package inventory

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
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

// newReservation is an id that cannot be guessed: 80 bits.
func newReservation(location string) string { return location + "." + rand.Text()[:16] }

func appendItems(b []byte, items []dray.Item) []byte {
	for _, it := range items {
		b = append(append(append(b, it.SKU...), ' '), strconv.FormatInt(it.Quantity, 10)...)
		b = append(b, '\n')
	}
	return b
}

// A names gives each name of a list its place in it.
type names struct {
	list  []string
	index map[string]int
}

func (n *names) place(name string) string {
	if name == "" {
		return "0"
	}
	i, ok := n.index[name]
	if !ok {
		if n.index == nil {
			n.index = make(map[string]int, 16)
		}
		n.list = append(n.list, name)
		i = len(n.list)
		n.index[name] = i
	}
	return strconv.Itoa(i)
}

// An encoder writes ops as the arguments of apply.lua.
type encoder struct {
	skus, keys, ids names
	ops             []string
}

func (e *encoder) add(o *op) {
	put := func(words ...string) { e.ops = append(e.ops, words...) }
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	put(string(rune(o.kind)))
	key := func() string { return e.keys.place(o.ref.key) }
	switch o.kind {
	case 'h':
		put(o.id, key(), o.ref.print, number(o.ttl.Milliseconds()), o.ref.by, flag(o.flag), strconv.Itoa(len(o.items)))
		for _, it := range o.items {
			put(e.skus.place(it.SKU), number(it.Quantity))
		}
	case 'c', 'r':
		put(e.ids.place(o.id), key(), o.ref.print, o.ref.by, strconv.Itoa(len(o.items)))
		for _, it := range o.items {
			put(it.SKU, number(it.Quantity))
		}
	case 'e':
		put(e.ids.place(o.id), key(), o.ref.print, number(o.ttl.Milliseconds()))
	case 'p':
		put(e.ids.place(o.id), e.skus.place(o.sku), number(o.quantity), o.ref.by)
	case 's':
		put(e.skus.place(o.sku), key(), o.ref.print, number(o.quantity), flag(o.flag), o.version, o.ref.by, o.reason)
	case 'a':
		put(e.skus.place(o.sku), key(), o.ref.print, number(o.quantity), o.ref.by, o.reason)
	case 'f':
		put(e.skus.place(o.sku), number(o.quantity), number(o.reserved), o.version, o.ref.by, o.reason)
	case 'g':
		put(e.skus.place(o.sku))
	case 'q':
		put(e.ids.place(o.id))
	}
}

// args are all arguments of a call, head first. They are pointers into one slice: a string in an
// interface would be an allocation each.
func (e *encoder) args(head ...string) []any {
	texts := head
	for _, n := range [...]*names{&e.skus, &e.keys, &e.ids} {
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
		return shortage(dray.CodeInsufficientStock, "not enough stock", rest)
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
