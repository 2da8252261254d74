package loadtest

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"dray"
)

// the fleet of these tests: its ids are t-000000 and on
func testFleet(n int) *fleet {
	f := newFleet(&Plan{Seed: 1, Drivers: n, Spread: 10_000})
	f.prefix = "t-"
	for i := range f.ids {
		f.ids[i] = fmt.Sprintf("t-%06d", i)
	}
	return f
}

func TestFramesThatBreakTheContract(t *testing.T) {
	driver := func(n, at int) string {
		return fmt.Sprintf(`{"receivedAt":9,"timestamp":%d,"driver":"t-%06d","latitude":1.5,"longitude":2}`, at, n)
	}
	frame := func(version int, lists string) string {
		return fmt.Sprintf(`{"type":"delta","id":1,"version":%d,"serverTime":9,%s}`, version, lists)
	}
	snapshot := `{"type":"snapshot","id":1,"version":1,"serverTime":9,"drivers":[` + driver(0, 5) + `]}`
	for _, test := range []struct {
		name   string
		frames []string
		want   string // of the violation; empty means that there is none
	}{
		{"a driver enters, moves and leaves", []string{snapshot,
			frame(2, `"entered":[`+driver(1, 5)+`],"moved":[`+driver(0, 6)+`]`),
			frame(3, `"left":[{"driver":"t-000001","reason":"moved"}]`),
			frame(7, `"entered":[`+driver(1, 6)+`]`)}, ""},
		{"another snapshot", []string{snapshot, strings.Replace(snapshot, `"version":1`, `"version":2`, 1)}, ""},
		{"a version comes again", []string{snapshot, frame(1, `"moved":[`+driver(0, 6)+`]`)}, "came after version 1"},
		{"a delta comes first", []string{frame(1, `"entered":[`+driver(0, 6)+`]`)}, "before the snapshot"},
		{"nothing changed", []string{snapshot, `{"type":"delta","id":1,"version":2,"serverTime":9}`}, "empty"},
		{"who is in enters", []string{snapshot, frame(2, `"entered":[`+driver(0, 6)+`]`)}, "entered, which was in"},
		{"who is not in moves", []string{snapshot, frame(2, `"moved":[`+driver(1, 6)+`]`)}, "moved, which was not in"},
		{"who is not in leaves", []string{snapshot, frame(2, `"left":[{"driver":"t-000001","reason":"moved"}]`)}, "left, which was not in"},
		{"one driver in two lists", []string{snapshot, frame(2, `"left":[{"driver":"t-000000","reason":"moved"}],"entered":[`+driver(0, 6)+`]`)}, "twice"},
		{"an older position", []string{snapshot, frame(2, `"moved":[`+driver(0, 4)+`]`)}, "after one of 5"},
		{"an older position of one that left", []string{snapshot, frame(2, `"left":[{"driver":"t-000000","reason":"moved"}]`), frame(3, `"entered":[`+driver(0, 4)+`]`)}, "after one of 5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := testFleet(2)
			s := &subscriber{run: &run{meter: newMeter()}, fleet: f, log: newLogbook(f), held: map[int]holding{}, live: make(chan struct{})}
			for _, text := range test.frames {
				var x change
				if ours, err := x.parse([]byte(text)); !ours || err != nil {
					t.Fatalf("parse(%s) = %v, %v", text, ours, err)
				}
				s.apply(&x, len(text), nanos())
			}
			got := strings.Join(s.violations, "; ")
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) || s.broken > 1 {
				t.Errorf("violations = %d, %q, want %q", s.broken, got, test.want)
			}
		})
	}
}

func TestSetsThatAreWrong(t *testing.T) {
	f := testFleet(2)
	s := &subscriber{center: center, radius: 1000, held: map[int]holding{}}
	inside := place{at: 5, lat: micro(center.Latitude), lon: micro(center.Longitude)}
	outside := inside
	outside.lat += 20_000
	f.acked = []place{inside, outside}
	for _, test := range []struct {
		name string
		held map[int]holding
		want string
	}{
		{"as it should be", map[int]holding{0: {place: inside, in: true}}, ""},
		{"one is missing", nil, "t-000000 is not in the set"},
		{"one has left", map[int]holding{0: {place: inside}}, "t-000000 is not in the set"},
		{"one is older", map[int]holding{0: {place: place{4, inside.lat, inside.lon}, in: true}}, "last acknowledged"},
		{"one is elsewhere", map[int]holding{0: {place: place{5, inside.lat + 1, inside.lon}, in: true}}, "last acknowledged"},
		{"one is too much", map[int]holding{0: {place: inside, in: true}, 1: {place: outside, in: true}}, "t-000001 is in the set"},
	} {
		s.held = test.held
		if got := s.wrong(f); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: wrong = %q, want %q", test.name, got, test.want)
		}
	}
}

func TestAnswersThatAreWrong(t *testing.T) {
	f := testFleet(3)
	for i := range f.acked { // 0, 11 and 22 m north
		f.acked[i] = place{at: 5, lat: micro(center.Latitude) + int32(i)*100, lon: micro(center.Longitude)}
	}
	q := &questions{plan: &NearbyPlan{Plan: Plan{Check: 1}, Radius: 1000, Limit: 2}, fleet: f}
	driver := func(i int, off float64) string {
		d := dray.Driver{Position: dray.NewPosition(f.ids[i], f.acked[i].point()), ReceivedAt: time.UnixMilli(9)}
		d.Timestamp = time.UnixMilli(5)
		d.Distance = dray.Distance(center, d.Point()) + off
		return string(d.AppendJSON(nil))
	}
	for _, test := range []struct {
		name    string
		drivers []string
		want    string
	}{
		{"the nearest two", []string{driver(0, 0), driver(1, 0)}, ""},
		{"one that is not the nearest", []string{driver(0, 0), driver(2, 0)}, "another is nearer"},
		{"too few", []string{driver(0, 0)}, "1 drivers, and there are 2"},
		{"not in order", []string{driver(1, 0), driver(0, 0)}, "order"},
		{"one twice", []string{driver(0, 0), driver(0, 0)}, "twice"},
		{"a wrong distance", []string{driver(0, 0), driver(1, 3)}, "is said to be"},
		{"a wrong position", []string{driver(0, 0), strings.Replace(driver(1, 0), `"timestamp":5`, `"timestamp":4`, 1)}, "was acknowledged"},
	} {
		body := `{"type":"result","id":1,"drivers":[` + strings.Join(test.drivers, ",") + `]}`
		got := q.wrong(&answered{question{center: center}, []byte(body)}, 0.01)
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: wrong(%s) = %q, want %q", test.name, body, got, test.want)
		}
	}
}

func TestTheFleetKeepsWithinItsSquare(t *testing.T) {
	f := testFleet(50)
	const reach = 10_000/2 + 20*60 // metres: it turns back at the first report outside
	for i := range f.cars {
		var last place
		for at := int64(1_700_000_000_000); at < 1_700_003_600_000; at += 30_000 {
			p := f.move(i, at)
			if north := (float64(p.lat) - f.lat) / f.metre; north < -reach || north > reach {
				t.Fatalf("move(%d, %d) is %.0f m north of the middle", i, at, north)
			}
			if last.at != 0 && dray.Distance(last.point(), p.point()) > 21*30 {
				t.Fatalf("move(%d, %d) is %.0f m from where it was 30 s ago", i, at, dray.Distance(last.point(), p.point()))
			}
			last = p
		}
		if f.index([]byte(f.ids[i])) != i {
			t.Errorf("index(%s) = %d, want %d", f.ids[i], f.index([]byte(f.ids[i])), i)
		}
	}
	for _, id := range []string{"", "t-", "x-000001", "t-000050", "t-00000a", "t-99999999999999999999"} {
		if got := f.index([]byte(id)); id != "t-" && got != -1 {
			t.Errorf("index(%q) = %d, want -1", id, got)
		}
	}
}

func TestCPUTime(t *testing.T) {
	used, known := cpuTime(os.Getpid())
	if known != (runtime.GOOS == "linux") || used < 0 {
		t.Errorf("cpuTime = %v, %v on %s", used, known, runtime.GOOS)
	}
	if _, known := cpuTime(1 << 30); known {
		t.Error("the CPU time of no process is known")
	}
}

// What the fast readers understand, they understand as the strict ones do.
func FuzzFrames(f *testing.F) {
	for _, seed := range []string{
		`{"type":"ack","seq":12}`,
		`{"type":"ok","id":3,"accepted":1,"superseded":2,"rejected":[]}`,
		`{"type":"ok","id":3,"accepted":1,"superseded":2,"rejected":[{"index":1,"code":"invalid_position","message":"no"}]}`,
		`{"type":"error","id":3,"seq":4,"code":"internal","message":"no","retryable":true}`,
		`{"type":"snapshot","id":1,"version":1,"serverTime":2,"drivers":[]}`,
		`{"type":"snapshot","id":1,"version":1,"serverTime":2,"drivers":[{"receivedAt":1,"timestamp":2,"driver":"a","latitude":-0.5,"longitude":-179.999999}]}`,
		`{"type":"delta","id":1,"version":2,"serverTime":3,"left":[{"driver":"a","reason":"moved"}],"entered":[{"receivedAt":1,"timestamp":2,"driver":"b","latitude":30,"longitude":1e-7}],"moved":[{"receivedAt":1,"timestamp":2,"driver":"c","latitude":85.000001,"longitude":0.1234567}]}`,
		`{"type":"welcome","connection":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var fast, strict reply
		if fast.fast(b) {
			if err := strict.strict(b); err != nil || !sameReply(&fast, &strict) {
				t.Errorf("reply %q: fast = %+v, strict = %+v, %v", b, fast, strict, err)
			}
		}
		var x, y change
		if x.fast(b) {
			if ours, err := y.strict(b); !ours || err != nil || !sameChange(&x, &y) {
				t.Errorf("change %q: fast = %+v, strict = %+v, %v, %v", b, x, y, ours, err)
			}
		}
	})
}

func sameReply(a, b *reply) bool {
	x, y := *a, *b
	x.rejected, y.rejected = nil, nil
	return len(a.rejected) == len(b.rejected) && reflect.DeepEqual(x, y)
}

func sameChange(a, b *change) bool {
	return a.snapshot == b.snapshot && a.version == b.version &&
		fmt.Sprint(a.entered, a.moved, a.left) == fmt.Sprint(b.entered, b.moved, b.left)
}

func TestTheFastWayIsTaken(t *testing.T) {
	d := dray.Driver{Position: dray.NewPosition("t-000001", dray.Point{Latitude: 30.25, Longitude: -97.75}), ReceivedAt: time.UnixMilli(9), Distance: math.NaN()}
	d.Timestamp = time.UnixMilli(2)
	text := `{"type":"delta","id":1,"version":2,"serverTime":3,"moved":[` + string(d.AppendJSON(nil)) + `]}`
	var x change
	if !x.fast([]byte(text)) || len(x.moved) != 1 || x.moved[0].place != (place{2, 30_250_000, -97_750_000}) {
		t.Errorf("fast(%s) = %+v", text, x)
	}
}
