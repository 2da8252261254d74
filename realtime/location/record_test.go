package location

import (
	"testing"

	"dray"
)

func TestRecordReadsBackAsWritten(t *testing.T) {
	p := dray.NewPosition("d1", dray.Point{Latitude: 24.86, Longitude: -67.01})
	p.Speed, p.Heading = 3.5, 0
	p.Attributes = map[string]string{"status": "fr}e\"e", "vehicle": "van"}
	text := string(appendRest([]byte(recordHead+"1732300000001"+recordMiddle+"1732299999000"), &p))
	for _, record := range []string{text, text + " "} {
		e, ok := ParseEntry([]byte(record))
		if !ok || string(e.Driver) != "d1" || e.At != 1732299999000 || e.ReceivedAt != 1732300000001 || e.Point != p.Point() || e.Left {
			t.Fatalf("ParseEntry(%q) = %+v, %v", record, e, ok)
		}
		var d dray.Driver
		if err := d.UnmarshalJSON(e.JSON); err != nil || d.Attributes["status"] != "fr}e\"e" || d.Speed != 3.5 {
			t.Fatalf("Unmarshal(%q) = %+v, %v", e.JSON, d, err)
		}
	}
}
