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
	told     dray.Stock // what the ledger knows, for f
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

// A set collects names, each once.
type set struct {
	list []string
	has  map[string]struct{}
}

func (n *set) add(name string) string {
	if name == "" {
		return ""
	}
	if _, twice := n.has[name]; !twice {
		if n.has == nil {
			n.has = make(map[string]struct{}, 16)
		}
		n.has[name] = struct{}{}
		n.list = append(n.list, name)
	}
	return name
}

// An encoder writes ops as the arguments of apply.lua.
type encoder struct {
	skus, keys, ids set
	ops             []string
	ttl             time.Duration // of the holds that were written last
}

func (e *encoder) put(words ...string) { e.ops = append(e.ops, words...) }

func (e *encoder) items(items []dray.Item) {
	for _, it := range items {
		e.put(it.SKU, strconv.FormatInt(it.Quantity, 10))
	}
	e.put("")
}

func (e *encoder) add(o *op) {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	key := e.keys.add(o.ref.key)
	if o.kind != 'h' {
		e.put(kindText[o.kind : o.kind+1])
	}
	switch o.kind {
	case 'h':
		e.hold(o, key)
	case 'c', 'r':
		e.put(e.ids.add(o.id), key, o.ref.print, o.ref.by)
		e.items(o.items)
	case 'e':
		e.put(e.ids.add(o.id), key, o.ref.print, number(o.ttl.Milliseconds()))
	case 'p':
		e.put(e.ids.add(o.id), e.skus.add(o.sku), number(o.quantity), o.ref.by)
	case 's':
		e.put(e.skus.add(o.sku), key, o.ref.print, number(o.quantity), flag(o.flag), o.version, o.ref.by, o.reason)
	case 'a':
		e.put(e.skus.add(o.sku), key, o.ref.print, number(o.quantity), o.ref.by, o.reason)
	case 'f':
		e.put(e.skus.add(o.sku), number(o.quantity), number(o.reserved), o.version, number(o.told.Quantity), number(o.told.Reserved), o.ref.by, o.reason)
	case 'g':
		e.put(e.skus.add(o.sku))
	case 'q':
		e.put(e.ids.add(o.id))
	}
}

// hold writes a hold, with the end of its record and its lines of the ledger ready made: that
// is cheaper here than in Lua.
func (e *encoder) hold(o *op, key string) {
	if e.ttl != o.ttl {
		e.ttl = o.ttl
		e.put("t", strconv.FormatInt(o.ttl.Milliseconds(), 10))
	}
	keyText := "-"
	if key != "" {
		e.put("H", key, o.ref.print, flag(o.flag))
		keyText = key
	}
	tail := make([]byte, 0, 64+160*len(o.items))
	tail = append(append(append(tail, o.ref.by...), ' '), keyText...)
	for _, it := range o.items {
		tail = append(append(append(tail, '\n'), it.SKU...), ' ')
		tail = append(strconv.AppendInt(tail, it.Quantity, 10), " 0 0"...)
	}
	kind := "h"
	if len(o.items) > 1 {
		kind = "m"
	}
	e.put(kind, o.id, string(tail))
	for _, it := range o.items {
		quantity := strconv.FormatInt(it.Quantity, 10)
		e.put(e.skus.add(it.SKU), quantity, "hold "+it.SKU+" 0 "+quantity+" "+o.id+" 0 "+o.ref.by+" ")
	}
	if len(o.items) > 1 {
		e.put("")
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

// args are all arguments of a call, head first. They are pointers into one slice: a string in an
// interface would be an allocation each.
func (e *encoder) args(head ...string) []any {
	texts := head
	for _, n := range [...]*set{&e.skus, &e.keys, &e.ids} {
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
