package httpapi

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestWorkCost(t *testing.T) {
	ring := `[0,0]` + strings.Repeat(`,[0.1,0.1]`, 998) + `,[0,0]`
	for frame, want := range map[string][2]float64{ // from, to
		`{"type":"position","driver":"d","latitude":1,"longitude":1}`:                                                         {0, 0},
		`{"type":"unsubscribe","id":1}`:                                                                                       {0, 0},
		`{"type":"subscribe","id":1,"nearby":{"latitude":1,"longitude":1,"radius":2000}}`:                                     {0, 0},
		`{"type":"subscribe","id":1,"nearby":{"latitude":1,"longitude":1,"radius":50000}}`:                                    {3, 3},
		`{"type":"subscribe","id":1,"drivers":["d"` + strings.Repeat(`,"d"`, 499) + `]}`:                                      {31, 31},
		`{"type":"subscribe","id":1,"cells":["8"` + strings.Repeat(`,"8"`, 499) + `]}`:                                        {31, 31},
		`{"type":"update","id":1,"area":{"type":"Polygon","coordinates":[[` + ring + `]]}}`:                                   {62, 62},
		`{"type":"update","id":1,"bounds":{"south":28.7,"west":-99.4,"north":31.8,"east":-96.2}}`:                             {40, 50},
		`{"type":"update","id":1,"bounds":{"south":-1,"west":179.5,"north":1,"east":-179.5}}`:                                 {9, 10},
		`{"type":"update","id":1,"filter":{"a":["b"` + strings.Repeat(`,"b"`, 63) + `]}}`:                                     {4, 4},
		`{"type":"nearby","id":1,"latitude":1,"longitude":1,"radius":500}`:                                                    {0, 0},
		`{"type":"nearby","id":1,"latitude":1,"longitude":1,"radius":50000,"limit":1000}`:                                     {13, 13},
		`{"type":"update","id":1,"bounds":{"south":-90,"west":-180,"north":90,"east":180}}`:                                   {100, 100},
		`{"type":"update","id":1,"bounds":{"south":1e300,"west":-1e300,"north":1e308,"east":1e300}}`:                          {0, 100},
		`{"type":"update","id":1,"bounds":{"south":0,"west":-1e308,"north":0,"east":1e308}}`:                                  {0, 100},
		`{"type":"reserve","id":1,"items":[{"sku":"a","quantity":1}` + strings.Repeat(`,{"sku":"a","quantity":1}`, 99) + `]}`: {6, 6},
		`{"type":"reserve","id":1,"near":{"latitude":1,"longitude":1,"radius":50000},"items":[{"sku":"a","quantity":1}]}`:     {13, 13},
		`{"type":"commit","id":1,"reservation":"default.A"}`:                                                                  {0, 0},
		`{"type":"claim","id":1,"latitude":1,"longitude":1,"radius":50000,"count":100,"ttlSeconds":1}`:                        {4, 4},
	} {
		var d decoder
		var m message
		if err := d.decode([]byte(frame), &m); err != nil {
			t.Fatalf("decode(%.100s) = %v", frame, err)
		}
		if got := workCost(&m); !(got >= want[0] && got <= want[1]) {
			t.Errorf("workCost(%.100s) = %v, want %v", frame, got, want)
		}
	}
}

// A polygon of 1,000 points is served as often as its cost allows, not as often as a ping.
func TestExpensiveMessagesAreReadSlowly(t *testing.T) {
	_, url := serveWith(t, Config{MessagesPerSecond: 200, MessageBurst: 200}, new(heldStore), newBigHub(1, 100))
	ws := dial(t, url)
	send(t, ws, `{"type":"subscribe","id":1,"drivers":["a"]}`)
	read(t, ws)
	read(t, ws)
	began := time.Now()
	ring := `[0,0]` + strings.Repeat(`,[0.1,0.1]`, 998) + `,[0,0]`
	for range 6 { // 64 each: 200 at once, the rest within a second
		send(t, ws, `{"type":"update","id":1,"area":{"type":"Polygon","coordinates":[[%s]]}}`, ring)
	}
	send(t, ws, `{"type":"auth","id":2,"token":"t"}`)
	for got := ""; got != fmt.Sprintf(`{"type":"ok","id":%d}`, 2); {
		got = read(t, ws)
	}
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("6 large updates took %v, want about a second", took)
	}
}
