package redisconn

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// FromEnv reads the REDIS_… variables that [Config] names, from the environment and, where it
// has none, from the file .env in the working directory. An empty variable counts as not set;
// with none set the result is an embedded Redis.
//
// A value that can't be read, or contradicts another, is an error that names the variable.
func FromEnv() (Config, error) {
	lookup, err := Env(".env")
	if err != nil {
		return Config{}, err
	}
	return FromLookup(lookup)
}

// FromLookup is [FromEnv] with the variables that lookup knows.
func FromLookup(lookup func(name string) (string, bool)) (Config, error) {
	var faults []error
	get := func(name string) string {
		v, _ := lookup(name)
		return strings.TrimSpace(v)
	}
	number := func(name string) (n int) {
		if v := get(name); v != "" {
			var err error
			if n, err = strconv.Atoi(v); err != nil || (n == 0 && name == "REDIS_PORT") {
				hint := ""
				if strings.HasPrefix(v, "tcp://") {
					hint = " (Kubernetes sets it so for a service named redis: set enableServiceLinks to false)"
				}
				faults = append(faults, fmt.Errorf("%s is %.40q, not a number%s", name, v, hint))
			}
		}
		return n
	}
	nodes := func(name string) (list []Node) {
		if v := get(name); v != "" {
			d := json.NewDecoder(strings.NewReader(v))
			d.DisallowUnknownFields()
			if err := d.Decode(&list); err != nil || d.More() || len(list) == 0 {
				faults = append(faults, fmt.Errorf(`%s must be a JSON list like [{"host":"10.0.0.1","port":6379}]`, name))
			}
		}
		return list
	}
	c := Config{
		URL:          get("REDIS_URL"),
		Host:         get("REDIS_HOST"),
		Port:         number("REDIS_PORT"),
		Username:     get("REDIS_USERNAME"),
		DB:           number("REDIS_DB"),
		KeyPrefix:    get("REDIS_KEY_PREFIX"),
		Sentinels:    nodes("REDIS_SENTINELS"),
		SentinelName: get("REDIS_SENTINEL_NAME"),
		ClusterNodes: nodes("REDIS_CLUSTER_NODES"),
	}
	c.Password, _ = lookup("REDIS_PASSWORD") // spaces may belong to it
	if v := get("REDIS_TLS"); v != "" {
		on, err := strconv.ParseBool(v)
		if err != nil {
			faults = append(faults, errors.New("REDIS_TLS must be true or false"))
		}
		if on {
			c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		} else if strings.HasPrefix(c.URL, "rediss:") {
			faults = append(faults, errors.New("REDIS_TLS contradicts REDIS_URL: use redis://"))
		}
	}
	if len(faults) > 0 {
		return Config{}, fmt.Errorf("redisconn: %w", errors.Join(faults...))
	}
	return c, c.Validate()
}

// Env looks variables up in the environment and then in the file at path, which need not exist.
// Its lines are NAME=value, where a value may stand in single or double quotes (with \n, \",
// \\ in the latter), "export " may lead, and # begins a comment at the start of a line or after a space.
func Env(path string) (lookup func(name string) (string, bool), err error) {
	file, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return func(name string) (string, bool) {
		if v, ok := os.LookupEnv(name); ok && v != "" {
			return v, true
		}
		v, ok := file[name]
		return v, ok
	}, nil
}

// Names are the variables that the file at path sets, as [Env] reads it, in order.
func Names(path string) ([]string, error) {
	file, err := readFile(path)
	return slices.Sorted(maps.Keys(file)), err
}

// Variables are the names of the variables that [FromEnv] reads.
func Variables() []string {
	var names []string
	_, _ = FromLookup(func(name string) (string, bool) {
		names = append(names, name)
		return "", false
	})
	return names
}

// readFile reads a .env file: name -> value.
func readFile(path string) (map[string]string, error) {
	file := map[string]string{}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("redisconn: %w", err)
	}
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(text, []byte("\ufeff"))) {
		n++
		name, value, err := parseLine(string(line))
		if err != nil {
			return nil, fmt.Errorf("redisconn: line %d of %s: %w", n, path, err) // never the line: it may be a secret
		}
		if name != "" {
			file[name] = value
		}
	}
	return file, nil
}

// parseLine takes one line of a .env file apart; name is empty when there is nothing on it.
func parseLine(line string) (name, value string, err error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || name == "" || strings.ContainsAny(name, " \t'\"") {
		return "", "", errors.New("not NAME=value")
	}
	if value == "" || (value[0] != '"' && value[0] != '\'') {
		if i := strings.Index(value, " #"); i >= 0 {
			value = strings.TrimSpace(value[:i])
		}
		return name, value, nil
	}
	return unquote(name, value)
}

func unquote(name, value string) (string, string, error) {
	quote := value[0]
	var b strings.Builder
	for i := 1; i < len(value); i++ {
		switch ch := value[i]; {
		case ch == quote:
			if rest := strings.TrimSpace(value[i+1:]); rest != "" && rest[0] != '#' {
				return "", "", errors.New("something follows the closing quote")
			}
			return name, b.String(), nil
		case ch == '\\' && quote == '"' && i+1 < len(value):
			i++
			if value[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(value[i])
			}
		default:
			b.WriteByte(ch)
		}
	}
	return "", "", errors.New("the quote is not closed")
}
