package dray

import (
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Unmarshal decodes one JSON text strictly: UTF-8, no duplicate names, names in their own
// case, nothing after it; unknown members are ignored. It fails with ErrBadRequest.
func Unmarshal(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		if CodeOf(err) != CodeInternal {
			return AsError(err)
		}
		return Errorf(CodeBadRequest, "not the JSON that was expected")
	}
	return nil
}

// wireDriver is Driver (and so Position) as JSON holds it; members stay text until their
// type is checked, for null and "1" must not become 0 or 1.
type wireDriver struct {
	Driver     jsontext.Value `json:"driver"`
	Latitude   jsontext.Value `json:"latitude"`
	Longitude  jsontext.Value `json:"longitude"`
	Accuracy   jsontext.Value `json:"accuracy"`
	Altitude   jsontext.Value `json:"altitude"`
	Heading    jsontext.Value `json:"heading"`
	Speed      jsontext.Value `json:"speed"`
	Timestamp  jsontext.Value `json:"timestamp"`
	Attributes jsontext.Value `json:"attributes"`
	ReceivedAt jsontext.Value `json:"receivedAt"`
	Distance   jsontext.Value `json:"distance"`
	Claimed    jsontext.Value `json:"claimed"`
}

// UnmarshalJSON reads the contract's object. Types are checked here (a coordinate that is
// missing, null or a string is ErrInvalidPosition, a driver that is no string
// ErrBadRequest), ranges by [Position.Validate]. null means unknown for accuracy, altitude,
// heading and speed, as the W3C Geolocation API writes it.
func (p *Position) UnmarshalJSON(b []byte) error {
	var w wireDriver
	if err := Unmarshal(b, &w); err != nil {
		return err
	}
	return w.position(p)
}

func (w *wireDriver) position(p *Position) (err error) {
	*p = Position{}
	if w.Driver != nil {
		if w.Driver.Kind() != '"' {
			return FieldError(CodeBadRequest, "driver", "must be a string")
		}
		if err := Unmarshal(w.Driver, &p.Driver); err != nil {
			return err
		}
		if p.Driver == "" { // "" stands for a driver that was left out
			return FieldError(CodeBadRequest, "driver", "must not be empty")
		}
	}
	number := func(name string, v jsontext.Value, required bool) float64 {
		if v == nil || v.Kind() == 'n' {
			if required && err == nil {
				err = FieldError(CodeInvalidPosition, name, "is missing")
			}
			return math.NaN()
		}
		f, bad := strconv.ParseFloat(string(v), 64)
		if err == nil && (v.Kind() != '0' || bad != nil) {
			err = FieldError(CodeInvalidPosition, name, "must be a number in range")
		}
		return f
	}
	p.Latitude = number("latitude", w.Latitude, true)
	p.Longitude = number("longitude", w.Longitude, true)
	p.Accuracy = number("accuracy", w.Accuracy, false)
	p.Altitude = number("altitude", w.Altitude, false)
	p.Heading = number("heading", w.Heading, false)
	p.Speed = number("speed", w.Speed, false)
	if err != nil {
		return err
	}
	if p.Timestamp, err = wireTime("timestamp", w.Timestamp); err != nil {
		return err
	}
	if w.Attributes != nil && w.Attributes.Kind() != 'n' {
		if p.Attributes, err = wireAttributes(w.Attributes); err != nil {
			return err
		}
	}
	return nil
}

// wireAttributes reads an object of strings; a value of null is none.
func wireAttributes(v jsontext.Value) (map[string]string, error) {
	var members map[string]jsontext.Value
	if v.Kind() != '{' || Unmarshal(v, &members) != nil {
		return nil, FieldError(CodeBadRequest, "attributes", "must be an object of strings")
	}
	attributes := make(map[string]string, len(members))
	for k, member := range members {
		var s string
		if member.Kind() != '"' || Unmarshal(member, &s) != nil {
			return nil, FieldError(CodeBadRequest, "attributes", "must be an object of strings")
		}
		attributes[k] = s
	}
	return attributes, nil
}

// wireTime reads integer milliseconds, 0 or more; 1e3 and 5.0 are integers too.
func wireTime(name string, v jsontext.Value) (time.Time, error) {
	if v == nil || v.Kind() == 'n' {
		return time.Time{}, nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if v.Kind() != '0' || err != nil || f != math.Trunc(f) || f < 0 || f >= 1<<53 {
		return time.Time{}, FieldError(CodeInvalidPosition, name, "must be an integer of milliseconds since 1970")
	}
	return time.UnixMilli(int64(f)), nil
}

// UnmarshalJSON reads the contract's Driver object.
func (d *Driver) UnmarshalJSON(b []byte) (err error) {
	var w wireDriver
	if err := Unmarshal(b, &w); err != nil {
		return err
	}
	if err := w.position(&d.Position); err != nil {
		return err
	}
	if d.ReceivedAt, err = wireTime("receivedAt", w.ReceivedAt); err != nil {
		return err
	}
	d.Claimed, d.Distance = w.Claimed.Kind() == 't', math.NaN()
	if w.Distance != nil {
		if d.Distance, err = strconv.ParseFloat(string(w.Distance), 64); err != nil {
			return FieldError(CodeBadRequest, "distance", "must be a number")
		}
	}
	return nil
}
