package main

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"dray"
)

// A trace is recorded positions, ordered by time.
type trace struct {
	rows    []row
	dropped map[string]int // why -> rows
}

type row struct {
	offset   time.Duration // since the first row of its file
	position dray.Position // its Timestamp is the recorded one
}

// The names a column may have, most telling first.
var columnNames = map[string][]string{
	"driver":    {"driver", "driver_id", "vehicle_id", "vehicle", "id"},
	"timestamp": {"timestamp", "time"},
	"latitude":  {"latitude", "lat"},
	"longitude": {"longitude", "lon", "lng"},
	"speed":     {"speed"},
	"heading":   {"heading", "bearing"},
	"accuracy":  {"accuracy"},
	"altitude":  {"altitude"},
}

// noSpeed is what some vehicles send for "no value": 255 mph, the largest of a byte.
const noSpeed = 255 * 0.44704

// Why a row is left out.
const (
	dropNowhere   = "at 0,0"
	dropTwice     = "with a driver and timestamp seen before"
	dropUnreadble = "that can't be read"
	dropInvalid   = "that the contract does not allow"
)

// readTraces reads files, each from its own first row on, so that they play side by side.
func readTraces(files, attributes []string) (*trace, error) {
	t := &trace{dropped: map[string]int{}}
	for _, file := range files {
		if err := t.readFile(file, attributes); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if len(t.rows) == 0 {
		return nil, fmt.Errorf("no row to replay (dropped: %s)", t.droppedText())
	}
	slices.SortStableFunc(t.rows, func(a, b row) int { return int(a.offset - b.offset) })
	return t, nil
}

func (t *trace) readFile(file string, attributes []string) error {
	f, err := os.Open(file)
	if err != nil {
		return errors.Unwrap(err) // the name is said already
	}
	defer f.Close()
	var r io.Reader = bufio.NewReader(f)
	if magic, _ := r.(*bufio.Reader).Peek(2); string(magic) == "\x1f\x8b" {
		if r, err = gzip.NewReader(r); err != nil {
			return err
		}
	}
	rows, err := t.readCSV(r, attributes)
	if err != nil {
		return err
	}
	slices.SortStableFunc(rows, func(a, b row) int { return a.position.Timestamp.Compare(b.position.Timestamp) })
	last := map[string]time.Time{} // driver -> timestamp of its last row
	for _, x := range rows {
		p := x.position
		if at, ok := last[p.Driver]; ok && at.Equal(p.Timestamp) {
			t.dropped[dropTwice]++
			continue
		}
		last[p.Driver] = p.Timestamp
		t.rows = append(t.rows, row{offset: p.Timestamp.Sub(rows[0].position.Timestamp), position: p})
	}
	return nil
}

// readCSV reads rows in the order of the file.
func (t *trace) readCSV(r io.Reader, attributes []string) ([]row, error) {
	in := csv.NewReader(r)
	in.FieldsPerRecord = -1
	in.ReuseRecord = true
	header, err := in.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty: its first line has to name the columns")
	}
	if err != nil {
		return nil, fmt.Errorf("read the first line, which names the columns: %w", err)
	}
	column, err := columns(header, attributes)
	if err != nil {
		return nil, err
	}
	var rows []row
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if _, ok := errors.AsType[*csv.ParseError](err); ok {
			t.dropped[dropUnreadble]++
			continue
		}
		if err != nil {
			return nil, err
		}
		p, why := readRow(record, column, attributes)
		if why != "" {
			t.dropped[why]++
			continue
		}
		rows = append(rows, row{position: p})
	}
}

// columns finds each member of a position, and each attribute, in the header.
func columns(header, attributes []string) (map[string]int, error) {
	at := map[string]int{} // column's name in lower case -> index
	for i, name := range header {
		at[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))] = i
	}
	column := map[string]int{}
	for member, names := range columnNames {
		for _, name := range names {
			if i, ok := at[name]; ok {
				column[member] = i
				break
			}
		}
	}
	for _, member := range []string{"driver", "timestamp", "latitude", "longitude"} {
		if _, ok := column[member]; !ok {
			return nil, fmt.Errorf("no column for the %s: one of %s is needed", member, strings.Join(columnNames[member], ", "))
		}
	}
	for _, name := range attributes {
		i, ok := at[strings.ToLower(name)]
		if !ok {
			return nil, usagef("--attribute %s: no such column; there are %s", name, strings.Join(slices.Sorted(maps.Keys(at)), ", "))
		}
		column["attribute "+name] = i
	}
	return column, nil
}

func readRow(record []string, column map[string]int, attributes []string) (p dray.Position, why string) {
	text := func(member string) string {
		i, ok := column[member]
		if !ok || i >= len(record) {
			return ""
		}
		return strings.TrimSpace(record[i])
	}
	number := func(member string) float64 {
		f, err := strconv.ParseFloat(text(member), 64)
		if err != nil || math.IsInf(f, 0) {
			return math.NaN()
		}
		return f
	}
	at := dray.Point{Latitude: number("latitude"), Longitude: number("longitude")}
	if at == (dray.Point{}) {
		return p, dropNowhere
	}
	p = dray.NewPosition(strings.Clone(text("driver")), at)
	var err error
	if p.Timestamp, err = readTime(text("timestamp")); err != nil || math.IsNaN(at.Latitude) || math.IsNaN(at.Longitude) {
		return p, dropUnreadble
	}
	if f := number("speed"); f >= 0 && math.Abs(f-noSpeed) > 1e-3 {
		p.Speed = f
	}
	if f := number("heading"); f >= 0 && f <= 360 {
		p.Heading = math.Mod(f, 360)
	}
	if f := number("accuracy"); f >= 0 {
		p.Accuracy = f
	}
	p.Altitude = number("altitude")
	if len(attributes) > 0 {
		p.Attributes = make(map[string]string, len(attributes))
		for _, name := range attributes {
			if v := text("attribute " + name); v != "" {
				p.Attributes[name] = strings.Clone(v)
			}
		}
	}
	if p.Validate(p.Timestamp) != nil {
		return p, dropInvalid
	}
	return p, ""
}

// readTime reads ISO 8601 with an offset, without one as UTC, or milliseconds since 1970.
func readTime(text string) (time.Time, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(ms), nil
	}
	var t time.Time
	err := errors.New("empty")
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04:05"} {
		if t, err = time.Parse(layout, text); err == nil {
			return t.Truncate(time.Millisecond), nil
		}
	}
	return t, err
}

// newest is the greatest timestamp.
func (t *trace) newest() (at time.Time) {
	for i := range t.rows {
		if x := t.rows[i].position.Timestamp; x.After(at) {
			at = x
		}
	}
	return at
}

// droppedText names what was left out, and why; "nothing" where that is all.
func (t *trace) droppedText() string {
	if len(t.dropped) == 0 {
		return "nothing"
	}
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(t.dropped)) {
		parts = append(parts, fmt.Sprintf("%d %s", t.dropped[why], why))
	}
	return strings.Join(parts, ", ")
}

// live maps recorded time to the present, and keeps it growing for each driver. A row is
// taken to be measured when it is sent: speed times as fast as it was recorded, from start
// on. At the greatest speed (0) each driver's last row is of start, and those before it are
// a millisecond apart.
func (t *trace) live(start time.Time, speed float64) {
	left := map[string]int{} // driver -> rows to come
	for i := range t.rows {
		left[t.rows[i].position.Driver]++
	}
	last := map[string]time.Time{} // driver -> its newest timestamp
	for i := range t.rows {
		p := &t.rows[i].position
		if speed == 0 {
			left[p.Driver]--
			p.Timestamp = start.Add(-time.Duration(left[p.Driver]) * time.Millisecond)
			continue
		}
		at := start.Add(time.Duration(float64(t.rows[i].offset) / speed)).Truncate(time.Millisecond)
		if before, ok := last[p.Driver]; ok && !at.After(before) {
			at = before.Add(time.Millisecond)
		}
		last[p.Driver], p.Timestamp = at, at
	}
}
