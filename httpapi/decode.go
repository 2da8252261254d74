package httpapi

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"dray"
)

// A decoder reads the frames of one connection. It is not for concurrent use.
//
// Reports of positions are nearly all of what comes in, so decodeFast reads those in one pass
// and without an allocation as they are commonly written. Whatever is spelled otherwise
// (escapes, names that are unknown or stand twice, values of another type) it leaves to
// decodeStrict, which alone says what is wrong. A fuzz test holds the two to the same answer.
type decoder struct {
	driver string // whom the token speaks for: stands where a position names no driver; "" for nobody

	now time.Time // the server's clock, for what lies ahead of it; zero for never mind

	id     []byte // of the last message
	memory memory
	undo   []change // what this message has changed in memory so far
}

// A change is the attributes a sender had before.
type change struct {
	sender *sender
	was    *attributes
}

// fields tells which members an object has had.
type fields uint32

const (
	hasLatitude fields = 1 << iota
	hasLongitude
	hasAccuracy
	hasAltitude
	hasAltitudeAccuracy // of the W3C Geolocation API; not in the contract, so ignored
	hasHeading
	hasSpeed
	hasTimestamp
	hasDriver
	hasAttributes
	hasSeq
	hasID
	hasPositions
	isPosition
	isPositions

	hasPlace = hasLatitude | hasLongitude
	hasType  = isPosition | isPositions
)

// decodeFast reads a position or positions into m, or returns false: then m holds anything,
// d is unchanged, and decodeStrict must read the message.
func (d *decoder) decodeFast(b []byte, m *message) bool {
	d.undo = d.undo[:0]
	if d.fastMessage(b, m) {
		return true
	}
	for i := len(d.undo) - 1; i >= 0; i-- {
		d.undo[i].sender.last = d.undo[i].was
	}
	return false
}

func (d *decoder) fastMessage(b []byte, m *message) bool {
	var p dray.Position
	seen, i := d.fastObject(b, skipSpace(b, 0), &p, m)
	if i < 0 || skipSpace(b, i) != len(b) {
		return false
	}
	switch {
	case seen&isPosition != 0:
		if seen&hasPlace != hasPlace || seen&hasPositions != 0 {
			return false
		}
		m.typ = typePosition
		m.positions, m.index = append(m.positions, p), append(m.index, 0)
		return true
	case seen&isPositions != 0:
		m.typ = typePositions
		return seen&^(isPositions|hasID) == hasPositions
	}
	return false
}

// fastObject reads the object at b[i:] into p, and into m what only the outermost object has;
// m is nil inside a batch. It returns the members seen and where the object ends, or -1 where
// it can't tell.
func (d *decoder) fastObject(b []byte, i int, p *dray.Position, m *message) (seen fields, end int) {
	if i >= len(b) || b[i] != '{' {
		return 0, -1
	}
	nan := math.NaN()
	p.Accuracy, p.Altitude, p.Heading, p.Speed = nan, nan, nan, nan
	var driver, text []byte // text is that of the attributes
	for {
		var field fields
		if field, i = fastName(b, skipSpace(b, i+1)); i < 0 {
			return 0, -1
		}
		switch field {
		case hasLatitude:
			p.Latitude, i = fastNumber(b, i)
		case hasLongitude:
			p.Longitude, i = fastNumber(b, i)
		case hasAccuracy:
			p.Accuracy, i = fastNumberOrNull(b, i)
		case hasAltitude:
			p.Altitude, i = fastNumberOrNull(b, i)
		case hasAltitudeAccuracy:
			_, i = fastNumberOrNull(b, i)
		case hasHeading:
			p.Heading, i = fastNumberOrNull(b, i)
		case hasSpeed:
			p.Speed, i = fastNumberOrNull(b, i)
		case hasTimestamp:
			var ms int64
			if ms, i = fastInteger(b, i); i >= 0 {
				p.Timestamp = time.UnixMilli(ms)
			}
		case hasDriver:
			if driver, i = plainString(b, i); len(driver) == 0 {
				return 0, -1
			}
		case hasAttributes:
			text, i = d.fastAttributes(b, i)
		case hasType:
			if field, i = fastType(b, i); seen&hasType != 0 {
				return 0, -1
			}
		case hasSeq:
			var seq int64
			if seq, i = fastInteger(b, i); m != nil {
				m.seq = seq
			}
		case hasID:
			i = d.fastID(b, i, m)
		case hasPositions:
			i = d.fastBatch(b, i, m)
		}
		if i < 0 || seen&field != 0 {
			return 0, -1
		}
		seen |= field
		if i = skipSpace(b, i); i >= len(b) {
			return 0, -1
		}
		if b[i] == '}' {
			break
		}
		if b[i] != ',' {
			return 0, -1
		}
	}
	if seen&hasPlace == 0 {
		if driver != nil && !dray.ValidID(driver) {
			return 0, -1
		}
		return seen, i + 1
	}
	if !d.valid(p) { // so not to be remembered: the strict way sees to that
		return 0, -1
	}
	var from *sender
	if driver != nil {
		from = d.memory.sender(driver)
	} else {
		from = d.memory.own(d.driver)
	}
	if from == nil || !d.fastSettle(p, from, text) {
		return 0, -1
	}
	return seen, i + 1
}

// valid tells whether the store will take the numbers of p.
func (d *decoder) valid(p *dray.Position) bool {
	now := d.now
	if now.IsZero() {
		now = time.UnixMilli(1 << 53)
	}
	return p.ValidateFix(now) == nil
}

// fastSettle names the driver of p and gives p the attributes of that text, or the last ones
// sent where text is nil.
func (d *decoder) fastSettle(p *dray.Position, from *sender, text []byte) bool {
	p.Driver = from.name
	set := from.last
	if text != nil && (set == nil || set.text != string(text)) {
		if set = d.memory.attributes(text); set == nil {
			return false
		}
		d.undo = append(d.undo, change{from, from.last})
		from.last = set
	}
	if set != nil {
		p.Attributes = set.values
	}
	return true
}

func (d *decoder) fastBatch(b []byte, i int, m *message) (end int) {
	if m == nil || len(m.positions) > 0 || i >= len(b) || b[i] != '[' {
		return -1
	}
	for n := 0; n < dray.MaxPositions; n++ {
		m.positions = append(m.positions, dray.Position{})
		m.index = append(m.index, n)
		var seen fields
		seen, i = d.fastObject(b, skipSpace(b, i+1), &m.positions[n], nil)
		const unusual = hasType | hasSeq | hasID // unknown here, so to be ignored: the strict way does
		if i < 0 || seen&hasPlace != hasPlace || seen&unusual != 0 {
			return -1
		}
		if i = skipSpace(b, i); i >= len(b) {
			return -1
		}
		if b[i] == ']' {
			return i + 1
		}
		if b[i] != ',' {
			return -1
		}
	}
	return -1
}

// fastName tells which member begins at b[i:], and where its value does.
func fastName(b []byte, i int) (field fields, end int) {
	if len(b)-i < 2 {
		return 0, -1
	}
	var name string
	switch rest := b[i+2:]; b[i+1] {
	case 'l':
		if name, field = `"latitude"`, hasLatitude; len(rest) > 0 && rest[0] == 'o' {
			name, field = `"longitude"`, hasLongitude
		}
	case 't':
		if name, field = `"timestamp"`, hasTimestamp; len(rest) > 0 && rest[0] == 'y' {
			name, field = `"type"`, hasType
		}
	case 's':
		if name, field = `"speed"`, hasSpeed; len(rest) > 0 && rest[0] == 'e' {
			name, field = `"seq"`, hasSeq
		}
	case 'd':
		name, field = `"driver"`, hasDriver
	case 'a':
		switch {
		case len(rest) > 0 && rest[0] == 't':
			name, field = `"attributes"`, hasAttributes
		case len(rest) > 0 && rest[0] == 'c':
			name, field = `"accuracy"`, hasAccuracy
		case len(rest) > 7 && rest[7] == 'A':
			name, field = `"altitudeAccuracy"`, hasAltitudeAccuracy
		default:
			name, field = `"altitude"`, hasAltitude
		}
	case 'h':
		name, field = `"heading"`, hasHeading
	case 'i':
		name, field = `"id"`, hasID
	case 'p':
		name, field = `"positions"`, hasPositions
	default:
		return 0, -1
	}
	if end = i + len(name); end >= len(b) || string(b[i:end]) != name {
		return 0, -1
	}
	if b[end] != ':' {
		if end = skipSpace(b, end); end >= len(b) || b[end] != ':' {
			return 0, -1
		}
	}
	return field, skipSpace(b, end+1)
}

func fastType(b []byte, i int) (fields, int) {
	s, end := plainString(b, i)
	switch string(s) {
	case typePosition:
		return isPosition, end
	case typePositions:
		return isPositions, end
	}
	return 0, -1
}

func (d *decoder) fastID(b []byte, i int, m *message) (end int) {
	if m == nil {
		return -1
	}
	s, end := plainString(b, i)
	if end >= 0 {
		if len(s) == 0 || len(s) > maxID || bytes.IndexByte(s, 0x7f) >= 0 {
			return -1
		}
	} else if _, end = fastInteger(b, i); end < 0 {
		return -1
	}
	d.id = append(d.id[:0], b[i:end]...)
	m.id = d.id
	return end
}

// fastAttributes finds the text of the object of strings at b[i:]. Whether it is in order is
// told by memory.attributes, once for each text. The guess: it is what the sender before sent.
func (d *decoder) fastAttributes(b []byte, i int) (text []byte, end int) {
	if s := d.memory.latest; s != nil && s.last != nil {
		if end = i + len(s.last.text); end <= len(b) && string(b[i:end]) == s.last.text {
			return b[i:end], end
		}
	}
	start := i
	if i >= len(b) || b[i] != '{' {
		return nil, -1
	}
	if i = skipSpace(b, i+1); i < len(b) && b[i] == '}' {
		return b[start : i+1], i + 1
	}
	for {
		for _, then := range [...]byte{':', ','} { // a name, a value
			if i = quoted(b, skipSpace(b, i)); i < 0 {
				return nil, -1
			}
			if i = skipSpace(b, i); i >= len(b) {
				return nil, -1
			}
			if b[i] == '}' && then == ',' {
				return b[start : i+1], i + 1
			}
			if b[i] != then {
				return nil, -1
			}
			i++
		}
	}
}

// quoted returns the end of the string without escapes at b[i:]; it may hold any bytes.
func quoted(b []byte, i int) (end int) {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for i++; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			return -1
		}
	}
	return -1
}

// skipSpace returns the first place from i on that is no white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// plainString reads the string at b[i:] if it is ASCII without escapes.
func plainString(b []byte, i int) (s []byte, end int) {
	if i >= len(b) || b[i] != '"' {
		return nil, -1
	}
	i++
	for j, c := range b[i:] {
		if c == '"' {
			return b[i : i+j], i + j + 1
		}
		if c < ' ' || c == '\\' || c >= 0x80 {
			break
		}
	}
	return nil, -1
}

// fastInteger reads an integer of up to 15 digits, 0 or more.
func fastInteger(b []byte, i int) (n int64, end int) {
	start := i
	for i < len(b) && b[i]-'0' <= 9 {
		n = n*10 + int64(b[i]-'0')
		i++
	}
	if digits := i - start; digits == 0 || digits > 15 || digits > 1 && b[start] == '0' {
		return 0, -1
	}
	if i < len(b) && (b[i] == '.' || b[i]|0x20 == 'e') {
		return 0, -1
	}
	return n, i
}

func fastNumberOrNull(b []byte, i int) (f float64, end int) {
	if i < len(b) && b[i] == 'n' {
		if len(b)-i >= 4 && string(b[i:i+4]) == "null" {
			return math.NaN(), i + 4
		}
		return 0, -1
	}
	return fastNumber(b, i)
}

// powersOfTen are those that a float64 holds exactly.
var powersOfTen = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// fastNumber reads a JSON number. Digits below 2^53 and a power of ten up to 22 are both
// exact, so one division or product rounds right (W. D. Clinger, "How to Read Floating Point
// Numbers Accurately", 1990); the rest is for strconv.
func fastNumber(b []byte, i int) (f float64, end int) {
	start := i
	if i < len(b) && b[i] == '-' {
		i++
	}
	var mantissa uint64
	whole := i
	for i < len(b) && b[i]-'0' <= 9 {
		mantissa = mantissa*10 + uint64(b[i]-'0')
		i++
	}
	digits := i - whole
	if digits == 0 || digits > 1 && b[whole] == '0' {
		return 0, -1
	}
	exponent := 0
	if i < len(b) && b[i] == '.' {
		i++
		fraction := i
		for i < len(b) && b[i]-'0' <= 9 {
			mantissa = mantissa*10 + uint64(b[i]-'0')
			i++
		}
		exponent = fraction - i
		if exponent == 0 {
			return 0, -1
		}
		digits -= exponent
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		first := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if first == i {
			return 0, -1
		}
		digits = math.MaxInt // written with an exponent: seldom, so for strconv
	}
	if digits > 19 || mantissa >= 1<<53 || exponent < -22 {
		f, err := strconv.ParseFloat(string(b[start:i]), 64)
		if err != nil {
			return 0, -1
		}
		return f, i
	}
	f = float64(mantissa) / powersOfTen[-exponent]
	if b[start] == '-' {
		f = -f
	}
	return f, i
}
