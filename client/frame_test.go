package client

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"dray"
)

func TestADriverIsReadAsItWasWritten(t *testing.T) {
	full := dray.Driver{Position: dray.NewPosition("d:1@x", dray.Point{Latitude: -12.5, Longitude: 179.999999}), ReceivedAt: time.UnixMilli(1700000000001), Distance: 12.5, Claimed: true}
	full.Timestamp = time.UnixMilli(1700000000000)
	full.Accuracy, full.Altitude, full.Heading, full.Speed = 5, -3.25, 359.5, 0
	full.Attributes = map[string]string{"status": "free", "note": "a \"quoted\" \u2028 é"}
	bare := dray.Driver{Position: dray.NewPosition("d2", dray.Point{}), ReceivedAt: time.UnixMilli(2), Distance: math.NaN()}
	bare.Timestamp = time.UnixMilli(1)
	for _, seen := range []*interned{nil, {}} {
		for range 2 { // the second time from what is kept
			for _, want := range []dray.Driver{full, bare} {
				text := string(want.AppendJSON(nil))
				text = strings.Replace(text, "{", `{"later":{"a":[1]},`, 1)
				var f frame
				if err := f.decode([]byte(`{"type":"snapshot","drivers":[`+text+`]}`), seen); err != nil {
					t.Fatalf("decode(%s) = %v", text, err)
				}
				// NaN is not equal to itself; the text tells all there is.
				if got := f.Drivers.list; len(got) != 1 || string(got[0].AppendJSON(nil)) != string(want.AppendJSON(nil)) {
					t.Errorf("decode(%s) = %+v, want %+v", text, got, want)
				}
			}
		}
	}
	for _, text := range []string{`{}`, `[1]`, `[{"latitude":"1"}]`, `[{"timestamp":"1"}]`, `[{"driver":1}]`, `[{"attributes":[]}]`, `[{]`} {
		var f frame
		if err := f.decode([]byte(`{"type":"snapshot","drivers":`+text+`}`), nil); err == nil {
			t.Errorf("decode(%s) = nil, want an error", text)
		}
	}
}

// BenchmarkDecodeDelta reads a frame of 1000 drivers that moved.
func BenchmarkDecodeDelta(b *testing.B) {
	var moved []string
	for i := range 1000 {
		moved = append(moved, fmt.Sprintf(`{"receivedAt":1795409802829,"timestamp":1795409802824,"driver":"demo-%04d","latitude":30.25565,"longitude":-97.736808,"accuracy":5,"heading":92,"speed":7.9,"attributes":{"status":"free","vehicle":"van"}}`, i))
	}
	message := []byte(`{"type":"delta","id":1,"version":2,"serverTime":1795409802829,"moved":[` + strings.Join(moved, ",") + `]}`)
	var f frame
	var seen interned
	b.ReportAllocs()
	for b.Loop() {
		if err := f.decode(message, &seen); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/driver")
}
