package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

var negative = regexp.MustCompile(`^-\.?[0-9]`)

// spell puts arguments as kong reads them: "help" and "version" are commands elsewhere, and a
// negative number is a value and no flag: after its flag (--nearby -33.9,151.2,500) it is joined to
// it, elsewhere (stock adjust apple -2) it goes to the end, behind all flags.
func spell(args []string) []string {
	if len(args) == 0 {
		return []string{"--help"}
	}
	switch args[0] {
	case "help":
		args = append(args[1:len(args):len(args)], "--help")
	case "version":
		return []string{"--version"}
	}
	out := make([]string, 0, len(args)+1)
	var values []string
	for i, arg := range args {
		n := len(out)
		switch {
		case arg == "--":
			return append(append(append(out, arg), values...), args[i+1:]...)
		case !negative.MatchString(arg):
			out = append(out, arg)
		case n > 0 && strings.HasPrefix(out[n-1], "--") && !strings.Contains(out[n-1], "="):
			out[n-1] += "=" + arg
		default:
			values = append(values, arg)
		}
	}
	if len(values) > 0 {
		out = append(append(out, "--"), values...)
	}
	return out
}

// durations are the same in every flag: a number is of seconds, or has its unit.
func durations() kong.Option {
	return kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		token, err := ctx.Scan.PopValue("duration")
		if err != nil {
			return err
		}
		d, err := readDuration(fmt.Sprint(token.Value))
		if err == nil {
			target.SetInt(int64(d))
		}
		return err
	}))
}

func readDuration(text string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 && n < 1e9 {
		return time.Duration(n * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is neither seconds nor a duration like 250ms, 90s or 2m", text)
	}
	return d, nil
}
