package httpapi

import (
	"errors"
	"math"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
)

// The types of the frames that a client sends.
const (
	typeAuth        = "auth"
	typePosition    = "position"
	typePositions   = "positions"
	typeOffline     = "offline"
	typeSubscribe   = "subscribe"
	typeUpdate      = "update"
	typeUnsubscribe = "unsubscribe"
	typeNearby      = "nearby"
	typeClaim       = "claim"
	typeUnclaim     = "unclaim"
	typeStock       = "stock"
	typeReserve     = "reserve"
	typeCommit      = "commit"
	typeRelease     = "release"
	typeExtend      = "extend"
)

const (
	maxID      = 64 // bytes of a message's id
	maxNesting = 32 // objects and lists inside one another; an area needs 6
)

// errNotUTF8 is decode's answer to bytes that are no text: the connection closes with 1007.
var errNotUTF8 = errors.New("httpapi: message is not UTF-8")

// A message is one client frame, decoded and checked for form: the types of its fields, the
// sizes of its lists. Positions are checked for their values by the domain, shapes for their
// geometry. What it holds is valid until the next decode into it.
type message struct {
	typ       string          // one of the types above; "" when it could not be read
	id        []byte          // JSON text to echo as it was sent, "\"a\"" or 12; nil when absent
	token     string          // auth
	seq       int64           // position; -1 when absent
	positions []dray.Position // one for position; omitted attributes are filled in, nil when none were ever sent
	index     []int           // positions[i] was entry index[i] of the batch
	rejected  []rejection     // the entries of a batch that are no positions
	driver    string          // offline; "" when absent
	shape     *dray.Shape     // subscribe, update; nil when absent
	filter    dray.Filter     // nil when absent; empty selects all
	interval  time.Duration   // subscribe; -1 when absent
	center    dray.Point      // nearby
	radius    float64         // nearby, metres in (0, dray.MaxRadius]
	limit     int             // nearby; 0 when absent
	order     *order          // stock, reserve, commit, release, extend; may be kept
	claim     *dray.ClaimRequest
	ended     string // unclaim: which claim
}

// A rejection is one entry of a batch that could not be read, and why.
type rejection struct {
	index int
	err   *dray.Error
}

func (m *message) reset() {
	*m = message{seq: -1, interval: -1, positions: m.positions[:0], index: m.index[:0], rejected: m.rejected[:0]}
}

// decode reads one frame into m. It fails with errNotUTF8 or a *dray.Error; m.typ, m.id and
// m.seq are then set as far as they could be read, and d is as it was before.
func (d *decoder) decode(b []byte, m *message) error {
	m.reset()
	if d.decodeFast(b, m) {
		return nil
	}
	m.reset()
	return d.decodeStrict(b, m)
}

// wireMessage is a frame as JSON holds it. Members stay text until their type is checked:
// null and "1" must not become 0 or 1.
type wireMessage struct {
	Type      jsontext.Value `json:"type"`
	ID        jsontext.Value `json:"id"`
	Token     jsontext.Value `json:"token"`
	Seq       jsontext.Value `json:"seq"`
	Positions jsontext.Value `json:"positions"`
	Driver    jsontext.Value `json:"driver"`
	Filter    jsontext.Value `json:"filter"`
	Interval  jsontext.Value `json:"intervalMs"`
	Latitude  jsontext.Value `json:"latitude"`
	Longitude jsontext.Value `json:"longitude"`
	Radius    jsontext.Value `json:"radius"`
	Limit     jsontext.Value `json:"limit"`
	Count     jsontext.Value `json:"count"`
	Claim     jsontext.Value `json:"claim"`
	wireShape
	wireOrder
}

// decodeStrict is decode for every type and every spelling, and alone says what is wrong.
func (d *decoder) decodeStrict(b []byte, m *message) (err error) {
	if !utf8.Valid(b) {
		return errNotUTF8
	}
	if nestedOver(b, maxNesting) {
		return dray.Errorf(dray.CodeBadRequest, "nested too deeply")
	}
	var w wireMessage
	if err = dray.Unmarshal(b, &w); err != nil {
		var batch jsontext.Value
		if batch, err = cutBatch(b, &w); err != nil {
			d.salvage(b, m)
			return err
		}
		w.Positions = batch
	}
	m.typ = w.typ()
	if err := d.readID(&w, m); err != nil {
		return err
	}
	if m.typ == "" {
		return dray.FieldError(dray.CodeBadRequest, "type", "is missing or unknown")
	}
	if m.id == nil && needsID(m.typ) {
		return dray.FieldError(dray.CodeBadRequest, "id", "is missing")
	}
	switch m.typ {
	case typeAuth:
		return readString("token", w.Token, &m.token)
	case typePosition:
		return d.readPosition(b, &w, m)
	case typePositions:
		return d.readPositions(w.Positions, m)
	case typeOffline:
		return w.readDriver(m)
	case typeSubscribe, typeUpdate:
		return w.readSubscription(m)
	case typeNearby:
		return w.readNearby(m)
	case typeStock, typeReserve, typeCommit, typeRelease, typeExtend:
		m.order, err = w.readOrder(m.typ)
		return err
	case typeClaim:
		m.claim, err = w.readClaim()
		return err
	case typeUnclaim:
		return w.readUnclaim(m)
	}
	return nil
}

// typ is the message's type as a constant of ours, "" where it is none.
func (w *wireMessage) typ() string {
	var s string
	if readString("type", w.Type, &s) != nil {
		return ""
	}
	for _, t := range [...]string{
		typePosition, typePositions, typeAuth, typeOffline, typeSubscribe, typeUpdate, typeUnsubscribe, typeNearby,
		typeClaim, typeUnclaim, typeStock, typeReserve, typeCommit, typeRelease, typeExtend,
	} {
		if s == t {
			return t
		}
	}
	return ""
}

// needsID tells whether an answer is due that could not be told from others without one.
func needsID(typ string) bool {
	switch typ {
	case typeAuth, typePosition, typePositions, typeOffline:
		return false
	}
	return true
}

// readID keeps the id as it was sent: a string of 1 to maxID bytes without control
// characters, or an integer.
func (d *decoder) readID(w *wireMessage, m *message) error {
	if absent(w.ID) {
		return nil
	}
	if !validMessageID(w.ID) {
		return dray.FieldError(dray.CodeBadRequest, "id", "must be a string of 1 to %d bytes or an integer", maxID)
	}
	d.id = append(d.id[:0], w.ID...)
	m.id = d.id
	return nil
}

func validMessageID(v jsontext.Value) bool {
	switch v.Kind() {
	case '0':
		for i, c := range v {
			if digit := '0' <= c && c <= '9'; !digit && (i > 0 || c != '-') {
				return false
			}
		}
		return len(v) <= maxID
	case '"':
		s, err := jsontext.AppendUnquote(nil, v)
		if err != nil || len(s) == 0 || len(s) > maxID {
			return false
		}
		for _, r := range string(s) {
			if unicode.IsControl(r) {
				return false
			}
		}
		return true
	}
	return false
}

func (d *decoder) readPosition(b []byte, w *wireMessage, m *message) error {
	if !absent(w.Seq) {
		seq, ok := integer(w.Seq)
		if !ok || seq < 0 {
			return dray.FieldError(dray.CodeBadRequest, "seq", "must be an integer, 0 or more")
		}
		m.seq = seq
	}
	var p dray.Position
	if err := p.UnmarshalJSON(b); err != nil {
		return dray.AsError(err)
	}
	m.positions, m.index = append(m.positions, p), append(m.index, 0)
	d.fillIn(m.positions)
	return nil
}

func (d *decoder) readPositions(v jsontext.Value, m *message) error {
	entries, ok := listLoosely(v)
	if !ok || len(entries) == 0 {
		return dray.FieldError(dray.CodeBadRequest, "positions", "must be a list of 1 to %d positions", dray.MaxPositions)
	}
	if len(entries) > dray.MaxPositions {
		return dray.FieldError(dray.CodeTooLarge, "positions", "at most %d", dray.MaxPositions)
	}
	for i, entry := range entries {
		if entry.Kind() != '{' {
			m.rejected = append(m.rejected, rejection{i, dray.FieldError(dray.CodeBadRequest, "positions", "entry %d is no object", i)})
			continue
		}
		var p dray.Position
		if err := p.UnmarshalJSON(entry); err != nil {
			m.rejected = append(m.rejected, rejection{i, dray.AsError(err)})
			continue
		}
		m.positions, m.index = append(m.positions, p), append(m.index, i)
	}
	d.fillIn(m.positions)
	return nil
}

func (w *wireMessage) readDriver(m *message) error {
	if absent(w.Driver) {
		return nil
	}
	if readString("driver", w.Driver, &m.driver) != nil || !dray.ValidID(m.driver) {
		return dray.FieldError(dray.CodeBadRequest, "driver", "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxID)
	}
	return nil
}

func (w *wireMessage) readSubscription(m *message) (err error) {
	if m.shape, err = w.shape(); err != nil {
		return err
	}
	if m.filter, err = readFilter(w.Filter); err != nil {
		return err
	}
	if m.typ == typeUpdate {
		if m.shape == nil && m.filter == nil {
			return dray.FieldError(dray.CodeBadRequest, "filter", "an update needs a shape or a filter")
		}
		return nil
	}
	if m.shape == nil {
		return dray.FieldError(dray.CodeBadRequest, "nearby", "a subscription needs a shape")
	}
	if absent(w.Interval) {
		return nil
	}
	ms, ok := integer(w.Interval)
	if !ok || ms < 0 || ms > dray.MaxInterval.Milliseconds() {
		return dray.FieldError(dray.CodeBadRequest, "intervalMs", "must be an integer from 0 to %d", dray.MaxInterval.Milliseconds())
	}
	m.interval = time.Duration(ms) * time.Millisecond
	return nil
}

func (w *wireMessage) readNearby(m *message) error {
	if err := w.readPlace(m); err != nil || absent(w.Limit) {
		return err
	}
	limit, ok := integer(w.Limit)
	if !ok || limit < 1 || limit > dray.MaxLimit {
		return dray.FieldError(dray.CodeBadRequest, "limit", "must be an integer from 1 to %d", dray.MaxLimit)
	}
	m.limit = int(limit)
	return nil
}

// readPlace reads where somebody looks for drivers, and for which.
func (w *wireMessage) readPlace(m *message) (err error) {
	var ok bool
	if m.center.Latitude, ok = number(w.Latitude); !ok || math.Abs(m.center.Latitude) > dray.MaxLatitude {
		return dray.FieldError(dray.CodeInvalidPosition, "latitude", "must be within ±%v degrees", dray.MaxLatitude)
	}
	if m.center.Longitude, ok = number(w.Longitude); !ok || math.Abs(m.center.Longitude) > 180 {
		return dray.FieldError(dray.CodeInvalidPosition, "longitude", "must be within ±180 degrees")
	}
	if m.radius, err = readRadius(w.Radius); err != nil {
		return err
	}
	m.filter, err = readFilter(w.Filter)
	return err
}

func readRadius(v jsontext.Value) (float64, error) {
	radius, ok := number(v)
	if !ok || radius <= 0 || radius > dray.MaxRadius {
		return 0, dray.FieldError(dray.CodeBadRequest, "radius", "must be metres, over 0 and to %v", dray.MaxRadius)
	}
	return radius, nil
}

func readFilter(v jsontext.Value) (dray.Filter, error) {
	if absent(v) {
		return nil, nil
	}
	var lists map[string]jsontext.Value
	if v.Kind() != '{' || dray.Unmarshal(v, &lists) != nil {
		return nil, dray.FieldError(dray.CodeBadRequest, "filter", "must be an object of lists of strings")
	}
	if len(lists) > dray.MaxFilterKeys {
		return nil, dray.FieldError(dray.CodeTooLarge, "filter", "at most %d keys", dray.MaxFilterKeys)
	}
	filter := make(dray.Filter, len(lists))
	for k, list := range lists {
		values, err := readStrings("filter", list, dray.MaxFilterValues)
		if err != nil {
			return nil, err
		}
		filter[k] = values
	}
	return filter, filter.Validate()
}

// absent tells whether a member is not there; null says the same.
func absent(v jsontext.Value) bool { return v == nil || v.Kind() == 'n' }

// number reads a finite number.
func number(v jsontext.Value) (float64, bool) {
	if v.Kind() != '0' {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return f, err == nil
}

// integer reads a whole number below 2^53; 1e3 and 5.0 are whole too.
func integer(v jsontext.Value) (int64, bool) {
	f, ok := number(v)
	if !ok || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// readString reads a string that is not empty.
func readString(field string, v jsontext.Value, s *string) error {
	if v.Kind() != '"' || dray.Unmarshal(v, s) != nil || *s == "" {
		return dray.FieldError(dray.CodeBadRequest, field, "must be a string")
	}
	return nil
}

// readStrings reads a list of 1 to most strings.
func readStrings(field string, v jsontext.Value, most int) ([]string, error) {
	var list []jsontext.Value
	if v.Kind() != '[' || dray.Unmarshal(v, &list) != nil || len(list) == 0 {
		return nil, dray.FieldError(dray.CodeBadRequest, field, "must be a list of 1 to %d strings", most)
	}
	if len(list) > most {
		return nil, dray.FieldError(dray.CodeTooLarge, field, "at most %d", most)
	}
	all := make([]string, len(list))
	for i, v := range list {
		if v.Kind() != '"' || dray.Unmarshal(v, &all[i]) != nil {
			return nil, dray.FieldError(dray.CodeBadRequest, field, "must be a list of strings")
		}
	}
	return all, nil
}

// nestedOver tells whether objects and lists of b stand more than most deep. On what is no
// JSON it may say either.
func nestedOver(b []byte, most int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
