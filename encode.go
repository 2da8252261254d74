package dray

import (
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// AppendJSON appends p as the JSON object of the contract. Unknown fields are left out, as
// are a zero Timestamp, an empty Driver and nil Attributes.
func (p *Position) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	if p.Driver != "" {
		dst = append(dst, `"driver":`...)
		dst = AppendString(dst, p.Driver)
		dst = append(dst, ',')
	}
	if !p.Timestamp.IsZero() {
		dst = append(dst, `"timestamp":`...)
		dst = strconv.AppendInt(dst, p.Timestamp.UnixMilli(), 10)
		dst = append(dst, ',')
	}
	return append(p.AppendFields(dst), '}')
}

// AppendFields appends the members of p that a record in Redis holds after its driver and
// times: latitude, longitude and what is known of the rest, without braces.
func (p *Position) AppendFields(dst []byte) []byte {
	dst = append(dst, `"latitude":`...)
	dst = AppendNumber(dst, p.Latitude)
	dst = append(dst, `,"longitude":`...)
	dst = AppendNumber(dst, p.Longitude)
	dst = appendKnown(dst, `,"accuracy":`, p.Accuracy)
	dst = appendKnown(dst, `,"altitude":`, p.Altitude)
	dst = appendKnown(dst, `,"heading":`, p.Heading)
	dst = appendKnown(dst, `,"speed":`, p.Speed)
	if p.Attributes != nil {
		dst = append(dst, `,"attributes":`...)
		dst = AppendAttributes(dst, p.Attributes)
	}
	return dst
}

// AppendJSON appends d as the Driver object of the contract.
func (d *Driver) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"receivedAt":`...)
	dst = strconv.AppendInt(dst, d.ReceivedAt.UnixMilli(), 10)
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, d.Timestamp.UnixMilli(), 10)
	dst = append(dst, `,"driver":`...)
	dst = AppendString(dst, d.Driver)
	dst = append(dst, ',')
	dst = d.AppendFields(dst)
	dst = appendKnown(dst, `,"distance":`, d.Distance)
	if d.Claimed {
		dst = append(dst, `,"claimed":true`...)
	}
	return append(dst, '}')
}

// MarshalJSON is AppendJSON for package json.
func (p *Position) MarshalJSON() ([]byte, error) { return p.AppendJSON(nil), nil }

// MarshalJSON is AppendJSON for package json.
func (d *Driver) MarshalJSON() ([]byte, error) { return d.AppendJSON(nil), nil }

func appendKnown(dst []byte, name string, f float64) []byte {
	if math.IsNaN(f) {
		return dst
	}
	return AppendNumber(append(dst, name...), f)
}

// AppendNumber appends a finite f in the shortest form that reads back as f, as
// ECMAScript writes it (and encoding/json).
func AppendNumber(dst []byte, f float64) []byte {
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64)
}

// AppendAttributes appends attributes as a JSON object, keys in order, so that equal
// attributes are equal bytes.
func AppendAttributes(dst []byte, attributes map[string]string) []byte {
	var room [MaxAttributes]string
	keys := room[:0]
	for k := range attributes {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, k), ':')
		dst = AppendString(dst, attributes[k])
	}
	return append(dst, '}')
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD; the
// result holds no control character, so it is one line.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	plain := 0 // s[plain:i] needs no escape
	for i := 0; i < len(s); {
		b := s[i]
		if b >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[plain:i]...), `\ufffd`...)
				plain = i + 1
			}
			i += size
			continue
		}
		if b < ' ' || b == '"' || b == '\\' {
			dst = append(dst, s[plain:i]...)
			if b < ' ' {
				dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
			} else {
				dst = append(dst, '\\', b)
			}
			plain = i + 1
		}
		i++
	}
	return append(append(dst, s[plain:]...), '"')
}
