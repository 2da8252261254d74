package location

import (
	"bytes"
	"strconv"

	"dray"
)

// A record is what Redis holds of a driver in a bucket: the Driver object of the contract,
// as JSON, ready to be sent to watchers. The script finds the two times by their place, so
// the first members are fixed:
//
//	{"receivedAt":1732300000000,"timestamp":1732299999000,"driver":"d1","latitude":24.86,...}
//
// A driver that left has a tombstone in its place, which keeps late positions out:
//
//	{"departedAt":1732300000000,"timestamp":1732299999000,"driver":"d1","to":"8542da4bfffffff"}
//	{"departedAt":1732300000000,"timestamp":1732299999000,"driver":"d1","reason":"offline"}
//
// A space at the end marks a record whose entry is not in the directory yet (crossing.go).
const (
	recordHead    = `{"receivedAt":` // then 13 digits
	tombstoneHead = `{"departedAt":`
	recordMiddle  = `,"timestamp":`
	timeDigits    = 13 // until the year 2286
)

// appendRest appends what follows the timestamp in the record of p.
func appendRest(dst []byte, p *dray.Position) []byte {
	dst = append(dst, `,"driver":"`...)
	dst = append(dst, p.Driver...) // no letter of an id needs an escape
	dst = append(dst, `",`...)
	return append(p.AppendFields(dst), '}')
}

// An Entry is one record or tombstone as read from Redis.
type Entry struct {
	Driver     []byte
	At         int64  // its timestamp, ms
	ReceivedAt int64  // by Redis, ms; when it departed for a tombstone
	Left       bool   // a tombstone
	To         Bucket // where it went; 0 when offline
	Point      dray.Point
	Attributes []byte // their JSON, canonical; nil for none
	Claimed    bool
	JSON       []byte // the Driver object; nil for a tombstone
}

// ParseEntry reads one record or tombstone; false for anything that Store did not write.
// The Entry
// points into b.
func ParseEntry(b []byte) (e Entry, ok bool) {
	b = bytes.TrimSuffix(b, []byte{' '})
	const times = len(recordHead) + timeDigits + len(recordMiddle)
	if len(b) < times+2 || b[len(b)-1] != '}' {
		return e, false
	}
	switch string(b[:len(recordHead)]) {
	case recordHead:
	case tombstoneHead:
		e.Left = true
	default:
		return e, false
	}
	c := cursor{b: b, i: len(recordHead)}
	e.ReceivedAt = c.digits()
	c.literal(recordMiddle)
	e.At = c.digits()
	c.literal(`,"driver":"`)
	e.Driver = c.until('"')
	if e.Left {
		if c.skip(`,"to":"`) {
			e.To = ParseBucket(string(c.until('"')))
		} else {
			c.literal(`,"reason":"`)
			c.until('"')
		}
		return e, !c.bad && len(e.Driver) > 0
	}
	c.literal(`,"latitude":`)
	e.Point.Latitude = c.number()
	c.literal(`,"longitude":`)
	e.Point.Longitude = c.number()
	for _, name := range []string{`,"accuracy":`, `,"altitude":`, `,"heading":`, `,"speed":`} {
		if c.skip(name) {
			c.numberText()
		}
	}
	if c.skip(`,"attributes":`) {
		e.Attributes = c.object()
	}
	if c.skip(`,"claimed":true`) {
		e.Claimed = true
	}
	c.literal("}")
	e.JSON = b
	return e, !c.bad && c.i == len(b) && len(e.Driver) > 0 && e.Point.Valid()
}

// A cursor walks text of a form that is known; bad tells that it was another.
type cursor struct {
	b   []byte
	i   int
	bad bool
}

func (c *cursor) skip(s string) bool {
	if len(c.b)-c.i >= len(s) && string(c.b[c.i:c.i+len(s)]) == s {
		c.i += len(s)
		return true
	}
	return false
}

func (c *cursor) literal(s string) {
	if !c.skip(s) {
		c.bad = true
	}
}

func (c *cursor) digits() (n int64) {
	start := c.i
	for c.i < len(c.b) && '0' <= c.b[c.i] && c.b[c.i] <= '9' {
		n = n*10 + int64(c.b[c.i]-'0')
		c.i++
	}
	if c.i == start || c.i-start > 18 {
		c.bad = true
	}
	return n
}

func (c *cursor) until(end byte) []byte {
	n := bytes.IndexByte(c.b[c.i:], end)
	if n < 0 {
		c.bad = true
		return nil
	}
	s := c.b[c.i : c.i+n]
	c.i += n + 1
	return s
}

func (c *cursor) numberText() []byte {
	start := c.i
	for c.i < len(c.b) && c.b[c.i] != ',' && c.b[c.i] != '}' {
		c.i++
	}
	return c.b[start:c.i]
}

func (c *cursor) number() float64 {
	f, err := strconv.ParseFloat(string(c.numberText()), 64)
	if err != nil {
		c.bad = true
	}
	return f
}

// object takes a JSON object of strings.
func (c *cursor) object() []byte {
	start := c.i
	c.literal("{")
	for inString := false; c.i < len(c.b); c.i++ {
		switch b := c.b[c.i]; {
		case b == '\\':
			c.i++
		case b == '"':
			inString = !inString
		case b == '}' && !inString:
			c.i++
			return c.b[start:c.i]
		}
	}
	c.bad = true
	return nil
}

// parseDriver reads a record as a value.
func parseDriver(b []byte) (d dray.Driver, err error) {
	err = d.UnmarshalJSON(b)
	return d, err
}
