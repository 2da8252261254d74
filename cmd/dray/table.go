package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"dray"
)

// A column of the table of drivers.
type column struct {
	title string
	width int // in which it is flush right
	least int // where the terminal is too narrow for width
	text  func(r tableRow) string
}

// A tableRow is what a row of the table is made of.
type tableRow struct {
	dray.Driver
	age float64 // seconds
}

// middleColumns are those between the driver's id and its attributes.
func middleColumns() []column {
	return []column{
		{"LATITUDE", 10, 9, func(r tableRow) string { return fmt.Sprintf("%.5f", r.Latitude) }},
		{"LONGITUDE", 11, 10, func(r tableRow) string { return fmt.Sprintf("%.5f", r.Longitude) }},
		{"DISTANCE", 8, 8, func(r tableRow) string { return known("%.0f m", r.Distance) }},
		{"SPEED", 8, 8, func(r tableRow) string { return known("%.1f m/s", r.Speed) }},
		{"HEAD", 6, 4, func(r tableRow) string { return known("%.0f°", r.Heading) }},
		{"AGE", 6, 5, func(r tableRow) string { return fmt.Sprintf("%.0f s", r.age) }},
	}
}

const (
	idTitle         = "DRIVER"
	attributesTitle = "ATTRIBUTES"
	idWidth         = 20 // an id's column, where there is room
	idLeast         = 8
)

// A layout is the columns that fit a width.
type layout struct {
	id         int // its column's width
	columns    []column
	attributes int // room for them; 0 leaves them out, below 0 is no bound
}

// fit lays a table out: an id may be so long, and the attributes of a driver. Where not all
// fits, columns shrink first and then go, the least important first. A width of 0 has room for all.
func fit(width, id, attributes int, hasDistance bool) layout {
	l := layout{id: max(id, idWidth), columns: middleColumns(), attributes: -1}
	if width <= 0 {
		return l
	}
	wanted := 0 // by the attributes: a third of the width at most, before others have to go
	if attributes > 0 {
		wanted = min(max(attributes, len(attributesTitle)), width/3)
	}
	l.id = min(l.id, max(idWidth, width/3))
	room := func() int { // for the attributes, and what stands before them
		n := width - l.id
		for _, c := range l.columns {
			n -= 1 + c.width
		}
		return n - 2
	}
	enough := func() bool { return room() >= wanted || wanted == 0 && room() >= -2 }
	if !enough() {
		l.id = min(max(id, len(idTitle)), idWidth, max(idLeast, width/3))
		for i := range l.columns {
			l.columns[i].width = l.columns[i].least
		}
	}
	dropped := [][]string{{"HEAD"}, {"LATITUDE", "LONGITUDE"}, {"AGE"}, {"SPEED"}, {"DISTANCE"}}
	if !hasDistance {
		dropped = append([][]string{{"DISTANCE"}}, dropped...)
	}
	for ; len(dropped) > 0 && !enough(); dropped = dropped[1:] {
		l.columns = slices.DeleteFunc(l.columns, func(c column) bool { return slices.Contains(dropped[0], c.title) })
	}
	l.id = max(1, min(l.id, width))
	l.attributes = max(0, room())
	return l
}

func (l layout) head() string {
	return l.line(idTitle, attributesTitle, func(c column) string { return c.title })
}

func (l layout) row(r tableRow) string {
	return l.line(elide(printable(r.Driver.Driver), l.id), attributes(r.Attributes), func(c column) string { return c.text(r) })
}

func (l layout) line(id, attributes string, text func(column) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", l.id, id)
	for _, c := range l.columns {
		fmt.Fprintf(&b, " %*s", c.width, text(c))
	}
	if l.attributes != 0 {
		b.WriteString("  " + cut(attributes, l.attributes))
	}
	return strings.TrimRight(b.String(), " ")
}

// elide takes letters out of the middle of s, so that it is at most width long: ids differ at
// their ends.
func elide(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	runes := []rune(s)
	tail := width / 2
	return string(runes[:max(0, width-1-tail)]) + "…" + string(runes[len(runes)-tail:])
}

// cut takes the end off s, so that it is at most width long; below 0 it may be as long as it is.
func cut(s string, width int) string {
	if width < 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(0, width-1)]) + "…"
}
