package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"dray"
)

func TestTheTableFitsTheTerminal(t *testing.T) {
	short := dray.NewPosition("demo-0001", dray.Point{Latitude: -30.26575, Longitude: -97.74064})
	short.Speed, short.Heading = 12.25, 359
	short.Attributes = map[string]string{"status": "free", "vehicle": "car"}
	long := short
	long.Driver = "fleet:austin:" + strings.Repeat("x", 100) + ":0042"
	for _, test := range []struct {
		name     string
		width    int
		position dray.Position
		distance bool
		titles   string
		row      string // as it begins
	}{
		{"no terminal", 0, short, true, "DRIVER LATITUDE LONGITUDE DISTANCE SPEED HEAD AGE ATTRIBUTES",
			"demo-0001             -30.26575   -97.74064    286 m 12.2 m/s   359°    3 s  status=free vehicle=car"},
		{"wide", 140, short, true, "DRIVER LATITUDE LONGITUDE DISTANCE SPEED HEAD AGE ATTRIBUTES",
			"demo-0001             -30.26575   -97.74064    286 m 12.2 m/s   359°    3 s  status=free vehicle=car"},
		{"80", 80, short, true, "DRIVER LATITUDE LONGITUDE DISTANCE SPEED AGE ATTRIBUTES",
			"demo-0001 -30.26575  -97.74064    286 m 12.2 m/s   3 s  status=free vehicle=car"},
		{"80 without a middle", 80, short, false, "DRIVER LATITUDE LONGITUDE SPEED HEAD AGE ATTRIBUTES", "demo-0001 "},
		{"40", 40, short, true, "DRIVER DISTANCE ATTRIBUTES", "demo-0001    286 m  status=free vehicle…"},
		{"80 and a long id", 80, long, true, "DRIVER DISTANCE SPEED AGE ATTRIBUTES", "fleet:aus…xxxxx:0042    286 m 12.2 m/s   3 s  status=free"},
		{"200 and a long id", 200, long, true, "DRIVER LATITUDE LONGITUDE DISTANCE SPEED HEAD AGE ATTRIBUTES", "fleet:austin:xxx"},
		{"10", 10, long, true, "DRIVER", "fle…0042"},
	} {
		t.Run(test.name, func(t *testing.T) {
			row := tableRow{dray.Driver{Position: test.position, Distance: 286}, 3}
			l := fit(test.width, len(test.position.Driver), 23, test.distance)
			if got := strings.Join(strings.Fields(l.head()), " "); got != test.titles {
				t.Errorf("fit(%d) has the columns %s, want %s", test.width, got, test.titles)
			}
			for _, line := range []string{l.head(), l.row(row)} {
				if n := utf8.RuneCountInString(line); test.width > 0 && n > test.width {
					t.Errorf("a line is %d wide, want %d at most: %s", n, test.width, line)
				}
			}
			if got := l.row(row); !strings.HasPrefix(got, test.row) {
				t.Errorf("the row is %q, want %q", got, test.row)
			}
		})
	}
}

func TestElideKeepsBothEnds(t *testing.T) {
	for want, width := range map[string]int{"abcdefgh": 8, "abc…fgh": 7, "ab…fgh": 6, "…h": 2, "…": 1} {
		if got := elide("abcdefgh", width); got != want {
			t.Errorf("elide(abcdefgh, %d) = %q, want %q", width, got, want)
		}
	}
}
