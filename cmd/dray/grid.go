package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// grid writes rows under titles, in columns as wide as what stands in them; those that a "<" begins the title
// of are flush left, others flush right.
func grid(w io.Writer, titles []string, rows [][]string) error {
	left := make([]bool, len(titles))
	head := make([]string, len(titles))
	for i, title := range titles {
		head[i], left[i] = strings.CutPrefix(title, "<")
	}
	rows = append([][]string{head}, rows...)
	widths := make([]int, len(titles))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var text strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			width := widths[i]
			if left[i] {
				width = -width
			}
			fmt.Fprintf(&line, "%*s  ", width, cell)
		}
		text.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// clock is a time of the server for people: to the second, in their zone.
func clock(t time.Time) string { return t.Local().Format(time.DateTime) }
