package httpapi

import (
	"bytes"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
)

// loosely reads JSON whose strings may hold half a surrogate and whose objects may have a
// name twice: where a text is not in order, that tells which part of it is not.
func loosely(b []byte) *jsontext.Decoder {
	return jsontext.NewDecoder(bytes.NewReader(b), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// cutBatch reads a message, or a body, into v strictly but for its member positions, which it
// returns as it stands, for each entry to be judged by itself. It fails with ErrBadRequest.
func cutBatch(b []byte, v any) (positions jsontext.Value, err error) {
	var start, end int64
	members(b, func(name string, value jsontext.Value, at int64) {
		if name == "positions" && positions == nil {
			positions, start, end = slices.Clone(value), at-int64(len(value)), at
		}
	})
	if positions == nil {
		return nil, dray.Unmarshal(b, v)
	}
	rest := slices.Concat(b[:start], []byte("null"), b[end:])
	return positions, dray.Unmarshal(rest, v)
}

// members tells of each member of the object b, and where its value ends, as far as b can be
// read at all.
func members(b []byte, tell func(name string, value jsontext.Value, end int64)) {
	d := loosely(b)
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return
	}
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return
		}
		name := t.String()
		value, err := d.ReadValue()
		if err != nil {
			return
		}
		tell(name, value, d.InputOffset())
	}
}

// listLoosely reads a list as far as one entry over dray.MaxPositions, and tells whether it is one.
func listLoosely(v jsontext.Value) (entries []jsontext.Value, ok bool) {
	d := loosely(v)
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return nil, false
	}
	for d.PeekKind() != ']' {
		entry, err := d.ReadValue()
		if err != nil {
			return nil, false
		}
		if entries = append(entries, slices.Clone(entry)); len(entries) > dray.MaxPositions {
			break
		}
	}
	return entries, true
}

// salvage reads of a message that is refused the id and, of a position, the seq, so that
// its sender can tell which one it was. A member that stands twice is not believed.
func (d *decoder) salvage(b []byte, m *message) {
	var w wireMessage
	seen := map[string]int{}
	members(b, func(name string, value jsontext.Value, _ int64) {
		seen[name]++
		switch name {
		case "type":
			w.Type = slices.Clone(value)
		case "id":
			w.ID = slices.Clone(value)
		case "seq":
			w.Seq = slices.Clone(value)
		}
	})
	if seen["id"] == 1 {
		_ = d.readID(&w, m) // one that is none is none
	}
	if seen["type"] == 1 {
		m.typ = w.typ()
	}
	if seq, ok := integer(w.Seq); ok && seq >= 0 && seen["seq"] == 1 && m.typ == typePosition {
		m.seq = seq
	}
}
