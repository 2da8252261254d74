package main

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"dray/redisconn"
)

// othersVariables begin like ours and are not: dray's tests', redis images' and what
// Kubernetes sets for services named redis, dray or location.
var othersVariables = regexp.MustCompile(`^(DRAY_TEST_\w+|DRAY_SEED|REDIS_SERVER_BIN|REDIS_VERSION|REDIS_DOWNLOAD_\w+|\w+_SERVICE_(HOST|PORT)(_\w+)?|\w+_PORT_\d+_\w+|DRAY_PORT|LOCATION_PORT)$`)

// warnOfUnknown tells of variables that look like settings and are none: a misspelt REDIS_HOST
// would otherwise leave all data in memory, in silence. No value is ever shown.
func warnOfUnknown(log *slog.Logger, known, environment, file []string) {
	for _, from := range []struct {
		names []string
		where []any
	}{{environment, nil}, {file, []any{"file", ".env"}}} {
		for _, name := range from.names {
			prefix, _, _ := strings.Cut(name, "_")
			if !slices.Contains([]string{"DRAY", "LOCATION", "REDIS"}, prefix) || prefix == name ||
				slices.Contains(known, name) || othersVariables.MatchString(name) {
				continue
			}
			text := "unknown setting " + name
			if like := likeliest(name, known); like != "" {
				text += "; did you mean " + like + "?"
			}
			log.Warn(text, from.where...)
		}
	}
}

// environment is the names of what is set and not empty.
func environment() (names []string) {
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// settings are the names of all variables that dray reads.
func settings(flagVariables []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(flagVariables, redisconn.Variables()))))
}

// likeliest is the one of known that name was probably meant to be; empty when none is near.
func likeliest(name string, known []string) string {
	prefix, rest, _ := strings.Cut(name, "_")
	best, least := "", max(1, len(rest)/4)
	for _, k := range known {
		kPrefix, kRest, _ := strings.Cut(k, "_")
		if kPrefix != prefix {
			continue
		}
		d := mistakes(rest, kRest)
		if len(rest) >= 4 && strings.HasPrefix(kRest, rest) {
			d = 1
		}
		if d < least || d == least && best == "" {
			best, least = k, d
		}
	}
	return best
}

// mistakes is how many letters are to be put in, left out, replaced, or swapped with the next
// to make b of a.
func mistakes(a, b string) int {
	rows := make([][]int, len(a)+1) // letters of a -> letters of b -> mistakes
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			if i == 0 || j == 0 {
				rows[i][j] = i + j
				continue
			}
			replaced := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			rows[i][j] = min(replaced, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
