package loadtest

import (
	"math"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
)

// What the server sends is read by hand as dray writes it, and by the book where it is
// written otherwise. A fuzz test holds the two to the same answer.

// A reply is the server's answer to positions: an ok, an ack or an error.
type reply struct {
	kind       replyKind
	id         int   // of an ok, and of an error that has one; -1 without
	seq        int64 // of an ack, and of an error that has one; -1 without
	accepted   int
	superseded int
	rejected   []rejection
	code       dray.Code
	message    string
}

type replyKind uint8

const (
	replyOther replyKind = iota // nothing that a publisher waits for
	replyOK
	replyAck
	replyError
)

type rejection struct {
	Index   int       `json:"index"`
	Code    dray.Code `json:"code"`
	Message string    `json:"message"`
}

// parse reads b into r.
func (r *reply) parse(b []byte) error {
	if r.fast(b) {
		return nil
	}
	return r.strict(b)
}

func (r *reply) fast(b []byte) bool {
	*r = reply{id: -1, seq: -1}
	c := cursor{b: b}
	switch {
	case c.take(`{"type":"ack","seq":`):
		r.kind, r.seq = replyAck, c.natural()
	case c.take(`{"type":"ok","id":`):
		r.kind, r.id = replyOK, int(c.natural())
		c.expect(`,"accepted":`)
		r.accepted = int(c.natural())
		c.expect(`,"superseded":`)
		r.superseded = int(c.natural())
		c.expect(`,"rejected":[]`)
	default:
		return false
	}
	c.expect(`}`)
	return !c.bad && c.i == len(b)
}

func (r *reply) strict(b []byte) error {
	var w struct {
		Type       string         `json:"type"`
		ID         jsontext.Value `json:"id"`
		Seq        *int64         `json:"seq"`
		Accepted   int            `json:"accepted"`
		Superseded int            `json:"superseded"`
		Rejected   []rejection    `json:"rejected"`
		Code       dray.Code      `json:"code"`
		Message    string         `json:"message"`
	}
	if err := dray.Unmarshal(b, &w); err != nil {
		return err
	}
	*r = reply{id: -1, seq: -1, accepted: w.Accepted, superseded: w.Superseded, rejected: w.Rejected, code: w.Code, message: w.Message}
	switch w.Type {
	case "ok":
		r.kind = replyOK
	case "ack":
		r.kind = replyAck
	case "error":
		r.kind = replyError
	}
	if len(w.ID) > 0 {
		if err := dray.Unmarshal(w.ID, &r.id); err != nil {
			return err
		}
	}
	if w.Seq != nil {
		r.seq = *w.Seq
	}
	return nil
}

// A change is a snapshot or a delta.
type change struct {
	snapshot bool
	version  int64
	entered  []entry // of a snapshot: all
	moved    []entry
	left     []entry // without a place
}

// An entry is one driver of a change. Its id is part of the frame it was read from.
type entry struct {
	driver []byte
	place
}

// parse reads b into x, reusing its slices; false when it is another kind of message, an
// error when it is none of the contract.
func (x *change) parse(b []byte) (bool, error) {
	if x.fast(b) {
		return true, nil
	}
	return x.strict(b)
}

func (x *change) reset() {
	*x = change{entered: x.entered[:0], moved: x.moved[:0], left: x.left[:0]}
}

func (x *change) fast(b []byte) bool {
	x.reset()
	c := cursor{b: b}
	switch {
	case c.take(`{"type":"delta","id":`):
	case c.take(`{"type":"snapshot","id":`):
		x.snapshot = true
	default:
		return false
	}
	c.natural()
	c.expect(`,"version":`)
	x.version = c.natural()
	c.expect(`,"serverTime":`)
	c.natural()
	if x.snapshot {
		c.expect(`,"drivers":[`)
		x.entered = c.drivers(x.entered)
	} else {
		if c.take(`,"left":[`) {
			x.left = c.leaves(x.left)
		}
		if c.take(`,"entered":[`) {
			x.entered = c.drivers(x.entered)
		}
		if c.take(`,"moved":[`) {
			x.moved = c.drivers(x.moved)
		}
	}
	c.expect(`}`)
	return !c.bad && c.i == len(b)
}

func (x *change) strict(b []byte) (bool, error) {
	var w struct {
		Type    string        `json:"type"`
		Version int64         `json:"version"`
		Drivers []dray.Driver `json:"drivers"`
		Entered []dray.Driver `json:"entered"`
		Moved   []dray.Driver `json:"moved"`
		Left    []dray.Leave  `json:"left"`
	}
	if err := dray.Unmarshal(b, &w); err != nil {
		return false, err
	}
	x.reset()
	x.snapshot, x.version = w.Type == "snapshot", w.Version
	list := func(dst []entry, drivers []dray.Driver) []entry {
		for i := range drivers {
			dst = append(dst, entryOf(&drivers[i]))
		}
		return dst
	}
	if x.snapshot {
		x.entered = list(x.entered, w.Drivers)
	} else {
		x.entered = list(x.entered, w.Entered)
		x.moved = list(x.moved, w.Moved)
		for _, l := range w.Left {
			x.left = append(x.left, entry{driver: []byte(l.Driver)})
		}
	}
	return w.Type == "snapshot" || w.Type == "delta", nil
}

func entryOf(d *dray.Driver) entry {
	return entry{[]byte(d.Driver), place{d.Timestamp.UnixMilli(), micro(d.Latitude), micro(d.Longitude)}}
}

// A cursor reads a text that is known but for its values. Once something else stands there
// it is bad, and stays so.
type cursor struct {
	b   []byte
	i   int
	bad bool
}

// take goes past text, if it stands there.
func (c *cursor) take(text string) bool {
	if c.bad || len(c.b)-c.i < len(text) || string(c.b[c.i:c.i+len(text)]) != text {
		return false
	}
	c.i += len(text)
	return true
}

func (c *cursor) expect(text string) {
	if !c.take(text) {
		c.bad = true
	}
}

// natural reads an integer of up to 15 digits, 0 or more, in JSON's one way to write it.
func (c *cursor) natural() (n int64) {
	start := c.i
	for c.i < len(c.b) && c.b[c.i]-'0' <= 9 {
		n = 10*n + int64(c.b[c.i]-'0')
		c.i++
	}
	if digits := c.i - start; digits == 0 || digits > 15 || digits > 1 && c.b[start] == '0' {
		c.bad = true
	}
	return n
}

// micro reads a number of at most six decimals, as millionths.
func (c *cursor) micro() int32 {
	negative := c.take("-")
	n := c.natural()
	scale := int64(1e6)
	if c.take(".") {
		start := c.i
		for c.i < len(c.b) && c.b[c.i]-'0' <= 9 && scale > 1 {
			n = 10*n + int64(c.b[c.i]-'0')
			scale /= 10
			c.i++
		}
		if c.i == start {
			c.bad = true
		}
	}
	if n > math.MaxInt32/scale { // a comma or an exponent that follows is told by who expects something else
		c.bad = true
		return 0
	}
	n *= scale
	if negative {
		n = -n
	}
	return int32(n)
}

// id reads a string of the letters that ids are made of.
func (c *cursor) id() []byte {
	c.expect(`"`)
	start := c.i
	for c.i < len(c.b) && c.b[c.i] != '"' && c.b[c.i] != '\\' {
		c.i++
	}
	id := c.b[start:c.i]
	c.expect(`"`)
	if !c.bad && !dray.ValidID(id) {
		c.bad = true
	}
	return id
}

// drivers reads a list of Driver objects with no members but those of our fleet, past its end.
func (c *cursor) drivers(dst []entry) []entry {
	if c.take("]") {
		return dst
	}
	for !c.bad {
		var e entry
		c.expect(`{"receivedAt":`)
		c.natural()
		c.expect(`,"timestamp":`)
		e.at = c.natural()
		c.expect(`,"driver":`)
		e.driver = c.id()
		c.expect(`,"latitude":`)
		e.lat = c.micro()
		c.expect(`,"longitude":`)
		e.lon = c.micro()
		c.expect(`}`)
		dst = append(dst, e)
		if c.take("]") {
			return dst
		}
		c.expect(",")
	}
	return dst
}

// leaves reads a list of leaves, past its end.
func (c *cursor) leaves(dst []entry) []entry {
	if c.take("]") {
		return dst
	}
	for !c.bad {
		c.expect(`{"driver":`)
		dst = append(dst, entry{driver: c.id()})
		c.expect(`,"reason":`)
		c.id()
		c.expect(`}`)
		if c.take("]") {
			return dst
		}
		c.expect(",")
	}
	return dst
}
