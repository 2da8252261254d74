package client

import (
	"math"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"dray"
)

// drivers is a list of Driver objects as the server sends them. A watcher of a city may be
// sent twenty thousand a second, so they are read token by token, and what comes again and
// again (ids, attributes) is kept once.
type drivers struct {
	list []dray.Driver
	seen *interned // nil keeps nothing
}

// UnmarshalJSONFrom reads the list into the room that is there.
func (x *drivers) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == 'n' {
		return dec.SkipValue()
	}
	if err := expect(dec, '['); err != nil {
		return err
	}
	for dec.PeekKind() == '{' {
		d := dray.Driver{Position: dray.NewPosition("", dray.Point{}), Distance: math.NaN()}
		if err := x.driver(dec, &d); err != nil {
			return err
		}
		x.list = append(x.list, d)
	}
	return expect(dec, ']')
}

func expect(dec *jsontext.Decoder, kind jsontext.Kind) error {
	t, err := dec.ReadToken()
	if err == nil && t.Kind() != kind {
		err = dray.Errorf(dray.CodeBadRequest, "not a list of drivers")
	}
	return err
}

// driver reads one object. Members that it does not know are of a later version.
func (x *drivers) driver(dec *jsontext.Decoder, d *dray.Driver) error {
	if err := expect(dec, '{'); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return err
		}
		switch string(name) {
		case `"driver"`:
			d.Driver, err = x.id(dec)
		case `"latitude"`:
			d.Latitude, err = number(dec)
		case `"longitude"`:
			d.Longitude, err = number(dec)
		case `"accuracy"`:
			d.Accuracy, err = number(dec)
		case `"altitude"`:
			d.Altitude, err = number(dec)
		case `"heading"`:
			d.Heading, err = number(dec)
		case `"speed"`:
			d.Speed, err = number(dec)
		case `"distance"`:
			d.Distance, err = number(dec)
		case `"timestamp"`:
			d.Timestamp, err = instant(dec)
		case `"receivedAt"`:
			d.ReceivedAt, err = instant(dec)
		case `"attributes"`:
			d.Attributes, err = x.attributes(dec)
		case `"claimed"`:
			var t jsontext.Token
			t, err = dec.ReadToken()
			d.Claimed = err == nil && t.Kind() == 't'
		default:
			err = dec.SkipValue()
		}
		if err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// number reads a number; null is NaN, as for what is unknown.
func number(dec *jsontext.Decoder) (float64, error) {
	t, err := dec.ReadToken()
	if err != nil || t.Kind() == 'n' {
		return math.NaN(), err
	}
	if t.Kind() != '0' {
		return 0, dray.Errorf(dray.CodeBadRequest, "a member of a driver is no number")
	}
	return t.Float()
}

func instant(dec *jsontext.Decoder) (time.Time, error) {
	t, err := dec.ReadToken()
	if err != nil {
		return time.Time{}, err
	}
	if t.Kind() != '0' {
		return time.Time{}, dray.Errorf(dray.CodeBadRequest, "a time of a driver is no number")
	}
	ms, err := t.Int()
	return time.UnixMilli(ms), err
}

func (x *drivers) id(dec *jsontext.Decoder) (string, error) {
	text, err := dec.ReadValue()
	if err != nil {
		return "", err
	}
	if id, ok := x.seen.id(text); ok {
		return id, nil
	}
	var id string
	if err := json.Unmarshal(text, &id); err != nil {
		return "", err
	}
	x.seen.keepID(text, id)
	return id, nil
}

func (x *drivers) attributes(dec *jsontext.Decoder) (map[string]string, error) {
	text, err := dec.ReadValue()
	if err != nil || text.Kind() == 'n' {
		return nil, err
	}
	if m, ok := x.seen.attributes(text); ok {
		return m, nil
	}
	m := map[string]string{}
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	x.seen.keepAttributes(text, m)
	return m, nil
}

// interned holds ids and attributes by their JSON. Each map is emptied when it is full:
// what is in use comes back by itself.
type interned struct {
	ids  map[string]string            // JSON -> id
	maps map[string]map[string]string // JSON -> attributes, shared by drivers: never changed
}

const (
	maxIDs  = 64 << 10
	maxMaps = 4 << 10
)

func (x *interned) id(text []byte) (string, bool) {
	if x == nil {
		return "", false
	}
	id, ok := x.ids[string(text)]
	return id, ok
}

func (x *interned) keepID(text []byte, id string) {
	if x == nil {
		return
	}
	if x.ids == nil || len(x.ids) >= maxIDs {
		x.ids = map[string]string{}
	}
	x.ids[string(text)] = id
}

func (x *interned) attributes(text []byte) (map[string]string, bool) {
	if x == nil {
		return nil, false
	}
	m, ok := x.maps[string(text)]
	return m, ok
}

func (x *interned) keepAttributes(text []byte, m map[string]string) {
	if x == nil {
		return
	}
	if x.maps == nil || len(x.maps) >= maxMaps {
		x.maps = map[string]map[string]string{}
	}
	x.maps[string(text)] = m
}
