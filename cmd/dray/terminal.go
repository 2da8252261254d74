package main

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// discard is for commands that tell by themselves what a logger would.
var discard = slog.New(slog.DiscardHandler)

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// size is w's in columns and rows; 0, 0 where it is no terminal.
func size(w io.Writer) (width, height int) {
	if f, ok := w.(*os.File); ok {
		width, height, _ = term.GetSize(int(f.Fd()))
	}
	return width, height
}

// printable is s without what would steer a terminal: drivers choose their attributes.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
