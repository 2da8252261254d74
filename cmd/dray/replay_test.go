package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/redisconn/redistest"
)

// A follower keeps the set that watch --json tells of.
type follower struct {
	drivers map[string]dray.Driver
}

func newFollower() *follower { return &follower{drivers: map[string]dray.Driver{}} }

// apply takes one line and returns how many drivers moved.
func (f *follower) apply(t *testing.T, line []byte) int {
	t.Helper()
	var e struct {
		Type    string
		Drivers []dray.Driver
		Entered []dray.Driver
		Moved   []dray.Driver
		Left    []dray.Leave
	}
	if err := json.Unmarshal(line, &e); err != nil {
		t.Fatalf("watch wrote %q: %v", line, err)
	}
	if e.Type == "snapshot" {
		clear(f.drivers)
	}
	for _, l := range e.Left {
		delete(f.drivers, l.Driver)
	}
	for _, d := range slices.Concat(e.Drivers, e.Entered, e.Moved) {
		f.drivers[d.Driver] = d
	}
	return len(e.Moved)
}

// places is each driver with where it is.
func (f *follower) places() map[string]dray.Point {
	m := map[string]dray.Point{}
	for id, d := range f.drivers {
		m[id] = d.Point()
	}
	return m
}

// bruteForce is where each driver of the files is at last, of those inside circle.
func bruteForce(t *testing.T, circle dray.Circle, files ...string) map[string]dray.Point {
	t.Helper()
	trace, err := readTraces(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]dray.Point{}
	for _, r := range trace.rows {
		last[r.position.Driver] = r.position.Point()
	}
	maps.DeleteFunc(last, func(_ string, p dray.Point) bool { return dray.Distance(p, circle.Center()) > circle.Radius })
	return last
}

func TestReplayThroughOneNodeIsSeenOnAnother(t *testing.T) {
	redis := redistest.Single(t)
	const shared = "../../../shared/data/"
	for _, test := range []struct {
		name   string
		file   string
		speed  string
		circle dray.Circle
	}{
		{"synthetic, forty times as fast", "testdata/faults.csv", "40", dray.Circle{Latitude: 30.27, Longitude: -97.74, Radius: 3000}},
		{"Austin, as fast as possible", shared + "austin-buses/2017-03-21.csv.gz", "max", dray.Circle{Latitude: 30.3, Longitude: -97.73, Radius: 9000}},
		{"Liverpool, three thousand times as fast", shared + "liverpool-bus/route14_outbound.csv.gz", "3000", dray.Circle{Latitude: 53.43, Longitude: -2.94, Radius: 4000}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := os.Stat(test.file); err != nil {
				t.Skipf("the recorded data is not part of the repository: %v", err)
			}
			env := []string{fmt.Sprintf("REDIS_URL=redis://%s", redis.Addr()), "REDIS_KEY_PREFIX=" + redistest.Prefix(t)}
			one := start(t, env, "serve", "--listen", "127.0.0.1:0", "--log-level", "warn", "--inventory", "off", "--max-connections", "100") // no more than files may be open
			two := start(t, env, "serve", "--listen", "127.0.0.1:0", "--log-level", "warn", "--inventory", "off", "--max-connections", "100") // no more than files may be open
			want := bruteForce(t, test.circle, test.file)
			if len(want) < 2 {
				t.Fatalf("only %d drivers to be seen: the circle is badly chosen", len(want))
			}

			watch := command(t, nil, "watch", "--url", two.url, "--json", "--interval", "100ms",
				"--nearby", fmt.Sprintf("%v,%v,%v", test.circle.Latitude, test.circle.Longitude, test.circle.Radius))
			out, err := watch.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := watch.Start(); err != nil {
				t.Fatal(err)
			}
			lines := make(chan []byte)
			go func() {
				defer close(lines)
				for r := bufio.NewReader(out); ; {
					line, err := r.ReadBytes('\n')
					if err != nil {
						return
					}
					lines <- line
				}
			}()
			set := newFollower()
			set.apply(t, <-lines)

			file, err := filepath.Abs(test.file)
			if err != nil {
				t.Fatal(err)
			}
			replayed := make(chan string, 1)
			go func() {
				code, stdout, stderr := runDray(t, nil, "replay", "--url", one.url, "--speed", test.speed, file)
				replayed <- fmt.Sprintf("%d %s%s", code, stdout, stderr)
			}()
			var ended bool
			var deadline <-chan time.Time
			for !ended || !maps.Equal(set.places(), want) {
				select {
				case line := <-lines:
					set.apply(t, line)
				case result := <-replayed:
					if !strings.HasPrefix(result, "0 ") || !strings.Contains(result, " 0 refused") {
						t.Errorf("replay = %s, want 0 and nothing refused", result)
					}
					t.Log(strings.TrimSpace(result))
					ended, deadline = true, time.After(5*time.Second)
				case <-deadline:
					t.Fatalf("5 s after the replay ended watch has %v, want %v", set.places(), want)
				}
			}
			interrupt(t, watch)
			for range lines {
			}
			watch.Wait()
			for _, p := range []*process{one, two} {
				if code := p.signal(t, os.Interrupt); code != 0 || p.stderr.Len() > 0 {
					t.Errorf("serve ended with %d and said %q, want 0 and nothing", code, p.stderr.String())
				}
			}
		})
	}
}

func interrupt(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
}

func TestATraceIsReadAsItIs(t *testing.T) {
	trace, err := readTraces([]string{"testdata/faults.csv"}, []string{"route_id"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := trace.droppedText(), "1 at 0,0, 2 that can't be read, 1 that the contract does not allow, 1 with a driver and timestamp seen before"; got != want {
		t.Errorf("dropped %q, want %q", got, want)
	}
	unknown := 0
	for i, r := range trace.rows {
		if i > 0 && r.offset < trace.rows[i-1].offset {
			t.Errorf("row %d is of %v, after %v", i, r.offset, trace.rows[i-1].offset)
		}
		if r.position.Speed != r.position.Speed {
			unknown++
		}
	}
	if unknown != 2 {
		t.Errorf("%d speeds are unknown, want 2: the one at 255 mph and the empty one", unknown)
	}
	if route := trace.rows[0].position.Attributes["route_id"]; route != "7" {
		t.Errorf("route_id of the first row is %q, want 7", route)
	}
}

func TestAnIDIsTheDriverOnlyWhereNothingElseIs(t *testing.T) {
	for header, want := range map[string]int{
		"id,timestamp,lat,lon,vehicle_id":   4,
		"id,timestamp,lat,lon,driver":       4,
		"timestamp,lat,lon,vehicle,id":      3,
		"timestamp,lat,lon,id":              3,
		"ID,timestamp,lat,lon,driver_phone": 0,
	} {
		got, err := columns(strings.Split(header, ","), nil)
		if err != nil || got["driver"] != want {
			t.Errorf("columns(%s) = %v, %v, want the driver in %d", header, got, err, want)
		}
	}
}

func TestTimeIsReadInEveryForm(t *testing.T) {
	for text, want := range map[string]int64{
		"1490072400000":             1490072400000,
		"2017-03-21T00:00:00-05:00": 1490072400000,
		"2017-03-21T05:00:00Z":      1490072400000,
		"2017-03-21T05:00:00.25Z":   1490072400250,
		"2017-03-21 05:00:00":       1490072400000,
		"2017-03-21T05:00:00":       1490072400000,
	} {
		if got, err := readTime(text); err != nil || got.UnixMilli() != want {
			t.Errorf("readTime(%q) = %v, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "noon", "2017-03-21"} {
		if got, err := readTime(text); err == nil {
			t.Errorf("readTime(%q) = %v, want an error", text, got)
		}
	}
}

func TestLiveTimestampsGrowForEachDriver(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000)
	for _, speed := range []float64{0, 0.5, 1, 60, 1e9} {
		trace, err := readTraces([]string{"testdata/faults.csv"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		trace.live(start, speed)
		last := map[string]time.Time{}
		for _, r := range trace.rows {
			p := r.position
			if at, ok := last[p.Driver]; ok && !p.Timestamp.After(at) {
				t.Errorf("at speed %v %s is of %v, after %v", speed, p.Driver, p.Timestamp, at)
			}
			last[p.Driver] = p.Timestamp
			if speed == 0 && p.Timestamp.After(start) {
				t.Errorf("at the greatest speed %s is of %v, after the start", p.Driver, p.Timestamp)
			}
			if due := start.Add(time.Duration(float64(r.offset) / max(speed, 1e-9))); speed > 0 && speed < 1e6 && p.Timestamp.Sub(due).Abs() > 5*time.Millisecond {
				t.Errorf("at speed %v a row due at %v is of %v", speed, due, p.Timestamp)
			}
		}
	}
}

func TestTheFleetKeepsToItsPlaceAndPace(t *testing.T) {
	f := newFleet(karachi, 50, 7)
	was := make([]dray.Point, 50)
	for second := range 600 {
		for i := range f.cars {
			p := f.drive(i, 1)
			if err := p.Validate(time.Now()); err != nil {
				t.Fatalf("%+v: %v", p, err)
			}
			if far := dray.Distance(p.Point(), karachi.center); far > demoRadius {
				t.Fatalf("%s is %v m away after %d s", p.Driver, far, second)
			}
			if gone := dray.Distance(p.Point(), was[i]); second > 0 && gone > 16 {
				t.Fatalf("%s went %v m in a second", p.Driver, gone)
			}
			was[i] = p.Point()
		}
	}
}

func TestReplayTellsHowItEnded(t *testing.T) {
	p := start(t, nil, "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
	dir := t.TempDir()
	future, slow := filepath.Join(dir, "future.csv"), filepath.Join(dir, "slow.csv")
	writeFile(t, future, "driver,timestamp,latitude,longitude\nd1,2099-01-01T00:00:00Z,30.25,-97.75\nd1,2099-01-01T00:00:01Z,30.25,-97.75\n")
	writeFile(t, slow, "driver,timestamp,latitude,longitude\nd1,0,30.25,-97.75\nd1,3600000,30.25,-97.75\n")

	code, stdout, stderr := runDray(t, nil, "replay", "--url", p.url, "--timestamps", "keep", "--speed", "100", future)
	if code != 1 || !strings.Contains(stdout, "2 refused") || !strings.Contains(stderr, "d1: invalid position: timestamp") {
		t.Errorf("replay of the future = %d, %q, %q, want 1, two refused, and why", code, stdout, stderr)
	}
	code, stdout, stderr = runDray(t, nil, "replay", "--url", p.url, "--speed", "1e6", slow)
	if code != 0 || !strings.HasPrefix(stdout, "2 positions sent") || stderr != "" {
		t.Errorf("replay = %d, %q, %q, want 0 and 2 sent", code, stdout, stderr)
	}

	var rows strings.Builder
	for i := range 20 {
		fmt.Fprintf(&rows, "%d,d3,2017-03-21T05:00:%02dZ,30.25,-97.75\n", i, i)
	}
	writeFile(t, slow, "id,driver,timestamp,latitude,longitude\n"+rows.String())
	for i := range 2 {
		args := []string{"replay", "--url", p.url, "--speed", "max", slow}
		if i == 1 {
			args = append(args, "--timestamps", "keep") // too old to be live
		}
		code, stdout, _ := runDray(t, nil, args...)
		if code != 0 || !strings.Contains(stdout, "0 refused, 19 superseded by newer ones; ") {
			t.Errorf("replay = %d, %q, want 0 and that one of a batch counts", code, stdout)
		}
		if told := strings.Contains(stdout, "recorded at 2017-03-21T05:00:19Z. All that are older"); told != (i == 1) {
			t.Errorf("replay said %q: it told that nobody becomes live: %v", stdout, told)
		}
	}

	writeFile(t, slow, "driver,timestamp,latitude,longitude\nd2,0,30.25,-97.75\nd2,3600000,30.25,-97.75\n")
	cmd := command(t, nil, "replay", "--url", p.url, slow)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for { // until its first row was taken
		_, table, _ := runDray(t, nil, "watch", "--url", p.url, "--drivers", "d2", "--once")
		if strings.Contains(table, "d2 ") {
			break
		}
	}
	interrupt(t, cmd)
	if cmd.Wait(); cmd.ProcessState.ExitCode() != exitInterrupted {
		t.Errorf("replay ended with %d after Ctrl-C, want %d", cmd.ProcessState.ExitCode(), exitInterrupted)
	}
	if code := p.signal(t, os.Interrupt); code != 0 {
		t.Errorf("serve ended with %d, want 0", code)
	}
}
