package dray_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"dray"
)

func TestEveryCodeHasItsRow(t *testing.T) {
	rows := map[dray.Code]int{
		dray.CodeBadRequest: 400, dray.CodeInvalidPosition: 422, dray.CodeTooLarge: 413, dray.CodeUnauthenticated: 401, dray.CodeForbidden: 403,
		dray.CodeNotFound: 404, dray.CodeMethodNotAllowed: 405, dray.CodeUnsupportedMediaType: 415, dray.CodeSubscriptionExists: 409,
		dray.CodeTooManySubscriptions: 429, dray.CodeInsufficientStock: 409, dray.CodeBelowReserved: 409, dray.CodeExceedsHeld: 409,
		dray.CodeIdempotencyMismatch: 409, dray.CodeReservationExpired: 409, dray.CodeAlreadyCommitted: 409, dray.CodeAlreadyReleased: 409,
		dray.CodeVersionConflict: 409, dray.CodeNoneAvailable: 409, dray.CodeDurabilityNotReached: 503, dray.CodeRateLimited: 429,
		dray.CodeUnavailable: 503, dray.CodeInternal: 500,
	}
	retryable := map[dray.Code]bool{dray.CodeDurabilityNotReached: true, dray.CodeRateLimited: true, dray.CodeUnavailable: true, dray.CodeInternal: true}
	if len(dray.Codes()) != len(rows) {
		t.Errorf("%d codes, want %d", len(dray.Codes()), len(rows))
	}
	for code, status := range rows {
		if code.Status() != status || code.Retryable() != retryable[code] {
			t.Errorf("%s: status %d, retryable %v, want %d, %v", code, code.Status(), code.Retryable(), status, retryable[code])
		}
	}
}

func TestErrorsMatchByCode(t *testing.T) {
	err := fmt.Errorf("report d1: %w", dray.FieldError(dray.CodeInvalidPosition, "latitude", "is missing"))
	if !errors.Is(err, dray.ErrInvalidPosition) || errors.Is(err, dray.ErrBadRequest) || dray.CodeOf(err) != dray.CodeInvalidPosition {
		t.Errorf("%v does not match its code alone", err)
	}
	if dray.CodeOf(nil) != "" || dray.CodeOf(errors.New("x")) != dray.CodeInternal || dray.AsError(errors.New("secret")).Message != "internal error" {
		t.Error("an error without a code is internal, and says nothing")
	}
	for _, n := range []int{1001, 1011, 1012, 4001, 4008, -1} {
		if !dray.Reconnects(n) {
			t.Errorf("Reconnects(%d) = false", n)
		}
	}
	for _, n := range []int{1000, 1002, 1003, 1007, 1008, 1009, 4003, 4029} {
		if dray.Reconnects(n) {
			t.Errorf("Reconnects(%d) = true", n)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"a", "Az09._:@-", strings.Repeat("x", 128)} {
		if !dray.ValidID(id) {
			t.Errorf("ValidID(%q) = false", id)
		}
	}
	for _, id := range []string{"", strings.Repeat("x", 129), "a b", "{a}", "a*", "a\n", "a\x00", "é", "a/b", "#"} {
		if dray.ValidID(id) {
			t.Errorf("ValidID(%q) = true", id)
		}
	}
}

func TestPositionsAreChecked(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for name, x := range map[string]struct {
		change func(p *dray.Position)
		want   error
	}{
		"as it should be":        {func(p *dray.Position) {}, nil},
		"at the limits":          {func(p *dray.Position) { p.Latitude, p.Longitude, p.Heading = -dray.MaxLatitude, -180, 0 }, nil},
		"0, 0":                   {func(p *dray.Position) { p.Latitude, p.Longitude = 0, 0 }, nil},
		"60 s ahead":             {func(p *dray.Position) { p.Timestamp = now.Add(time.Minute) }, nil},
		"1970":                   {func(p *dray.Position) { p.Timestamp = time.UnixMilli(0) }, nil},
		"latitude 86":            {func(p *dray.Position) { p.Latitude = 86 }, dray.ErrInvalidPosition},
		"latitude NaN":           {func(p *dray.Position) { p.Latitude = math.NaN() }, dray.ErrInvalidPosition},
		"longitude infinite":     {func(p *dray.Position) { p.Longitude = math.Inf(1) }, dray.ErrInvalidPosition},
		"heading 360":            {func(p *dray.Position) { p.Heading = 360 }, dray.ErrInvalidPosition},
		"heading -1":             {func(p *dray.Position) { p.Heading = -1 }, dray.ErrInvalidPosition},
		"speed -1":               {func(p *dray.Position) { p.Speed = -1 }, dray.ErrInvalidPosition},
		"accuracy -1":            {func(p *dray.Position) { p.Accuracy = -1 }, dray.ErrInvalidPosition},
		"altitude infinite":      {func(p *dray.Position) { p.Altitude = math.Inf(-1) }, dray.ErrInvalidPosition},
		"over 60 s ahead":        {func(p *dray.Position) { p.Timestamp = now.Add(time.Minute + time.Millisecond) }, dray.ErrInvalidPosition},
		"before 1970":            {func(p *dray.Position) { p.Timestamp = time.UnixMilli(-1) }, dray.ErrInvalidPosition},
		"no driver":              {func(p *dray.Position) { p.Driver = "" }, dray.ErrBadRequest},
		"17 attributes":          {func(p *dray.Position) { p.Attributes = attributes(17, 1, 1) }, dray.ErrBadRequest},
		"16 of the longest":      {func(p *dray.Position) { p.Attributes = attributes(16, 64, 256) }, nil},
		"attribute key too long": {func(p *dray.Position) { p.Attributes = attributes(1, 65, 1) }, dray.ErrBadRequest},
		"value too long":         {func(p *dray.Position) { p.Attributes = attributes(1, 1, 257) }, dray.ErrBadRequest},
	} {
		p := dray.NewPosition("d1", dray.Point{Latitude: 1, Longitude: 2})
		x.change(&p)
		if err := p.Validate(now); !errors.Is(err, x.want) {
			t.Errorf("%s: Validate(%+v) = %v, want %v", name, p, err, x.want)
		}
	}
}

func attributes(n, key, value int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[strings.Repeat("k", key-1)+string(rune('a'+i))] = strings.Repeat("v", value)
	}
	return m
}

func TestDriversReadBackAsWritten(t *testing.T) {
	d := dray.Driver{Position: dray.NewPosition("d:1@x", dray.Point{Latitude: -1e-7, Longitude: 179.999999999}), ReceivedAt: time.UnixMilli(1_800_000_000_123), Distance: 12.5, Claimed: true}
	d.Timestamp, d.Speed, d.Altitude = time.UnixMilli(1_799_999_999_999), 0, 1e22
	d.Attributes = map[string]string{"quote\"d": "line\nbreak", "ü": "\u2028"}
	var back dray.Driver
	if err := back.UnmarshalJSON(d.AppendJSON(nil)); err != nil {
		t.Fatalf("%s: %v", d.AppendJSON(nil), err)
	}
	if string(back.AppendJSON(nil)) != string(d.AppendJSON(nil)) || !maps.Equal(back.Attributes, d.Attributes) || !math.IsNaN(back.Heading) {
		t.Errorf("%s reads back as %s", d.AppendJSON(nil), back.AppendJSON(nil))
	}
	if err := back.UnmarshalJSON([]byte(`{"latitude":1,"longitude":null}`)); !errors.Is(err, dray.ErrInvalidPosition) {
		t.Errorf("a null longitude = %v, want ErrInvalidPosition", err)
	}
}

func TestAnErrorTellsWhatIsWrong(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	short := &dray.Error{Code: dray.CodeInsufficientStock, Message: "not enough stock", Details: []dray.Detail{
		{SKU: "a", Requested: n(3), Available: n(1)}, {SKU: "b", Requested: n(1), Available: n(0)}}}
	for want, err := range map[string]error{
		"not found":                       dray.ErrNotFound,
		"bad request: key: must be short": dray.FieldError(dray.CodeBadRequest, "key", "must be short"),
		"not enough stock: a: 3 asked for, 1 there, b: 1 asked for, 0 there": short,
	} {
		if err.Error() != want {
			t.Errorf("Error() = %q, want %q", err, want)
		}
	}
}

// The formula against places whose distance Redis 7.0.15 gives (GEODIST).
func TestDistanceIsThatOfRedis(t *testing.T) {
	palermo, catania := dray.Point{Latitude: 38.115556, Longitude: 13.361389}, dray.Point{Latitude: 37.502669, Longitude: 15.087269}
	if d := dray.Distance(palermo, catania); math.Abs(d-166274.15) > 0.6 { // Redis keeps places to 0.6 m
		t.Errorf("Distance(Palermo, Catania) = %.4f, want 166274.15 ± 0.6", d)
	}
	if d := dray.Distance(dray.Point{Longitude: 179.999}, dray.Point{Longitude: -179.999}); d > 223 || d < 222 {
		t.Errorf("over the antimeridian: %.1f m, want 222", d)
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\"\\\x00\x1f\x7f\u2028é\xff\xc3")
	f.Fuzz(func(t *testing.T, s string) {
		b := dray.AppendString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Errorf("AppendString(%q) = %s, reads back as %q, %v", s, b, back, err)
		}
		for _, c := range b {
			if c < ' ' {
				t.Errorf("AppendString(%q) = %q holds a control character", s, b)
			}
		}
	})
}

func FuzzAppendNumber(f *testing.F) {
	f.Add(0.1)
	f.Add(-1e-9)
	f.Fuzz(func(t *testing.T, x float64) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return
		}
		var back float64
		if err := json.Unmarshal(dray.AppendNumber(nil, x), &back); err != nil || back != x {
			t.Errorf("AppendNumber(%v) reads back as %v, %v", x, back, err)
		}
	})
}
