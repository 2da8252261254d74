package httpapi

import (
	"fmt"
	"testing"
)

func (m *memory) bytes() int { return m.young.bytes + m.old.bytes }

// Gateways that make up drivers without end fill what all connections together may remember;
// the driver of another connection keeps its attributes, and what ends gives back its part.
func TestMemoryOfAllConnectionsIsBounded(t *testing.T) {
	const most = 1 << 20
	all := &budget{most: most}
	gateways := make([]decoder, 8)
	for i := range gateways {
		gateways[i].memory.budget = all
	}
	app := decoder{memory: memory{budget: all}}
	var m message
	send := func(d *decoder, driver int, attributes string) {
		t.Helper()
		frame := fmt.Sprintf(`{"type":"position","driver":"driver-%d","latitude":1,"longitude":1%s}`, driver, attributes)
		if err := d.decode([]byte(frame), &m); err != nil {
			t.Fatal(err)
		}
	}
	send(&app, 0, `,"attributes":{"a":"app"}`)
	for i := range 40_000 {
		send(&gateways[i%len(gateways)], i, fmt.Sprintf(`,"attributes":{"a":"%d"}`, i))
		if i%1000 == 0 {
			send(&app, 0, "")
			if m.positions[0].Attributes["a"] != "app" {
				t.Fatalf("after %d drivers of others the app's has %v", i, m.positions[0].Attributes)
			}
		}
		if used := all.used.Load(); used > most+int64(2*memoryFloor*(len(gateways)+1)) {
			t.Fatalf("after %d drivers %d bytes are remembered, want %d and little more", i, used, most)
		}
	}
	held := app.memory.bytes()
	for i := range gateways {
		held += gateways[i].memory.bytes()
	}
	if used := all.used.Load(); used != int64(held) {
		t.Errorf("%d bytes are counted, %d are held", used, held)
	}
	for i := range gateways {
		gateways[i].memory.forget()
	}
	app.memory.forget()
	if used := all.used.Load(); used != 0 {
		t.Errorf("%d bytes are counted when all have ended", used)
	}
}
