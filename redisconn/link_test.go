package redisconn_test

import (
	"strings"
	"testing"

	"dray/redisconn"
)

func TestFeedReadsWhatRedisSends(t *testing.T) {
	const subscribed = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
	for name, test := range map[string]struct {
		in     string
		events int
		err    string
	}{
		"answers and a message": {subscribed + "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\n", 2, "EOF"},
		"end nobody asked for":  {"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n", 0, "the slot has moved"},
		"answer of another":     {"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:1\r\n", 0, "the slot has moved"},
		"error reply":           {subscribed + "-MOVED 1 h:1\r\n", 1, "MOVED 1 h:1"},
		"cut in a message":      {"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$40\r\nxx", 0, "unexpected EOF"},
		"endless string":        {"*3\r\n$99999999999\r\n", 0, "unexpected"},
		"endless line":          {strings.Repeat("x", 1<<17), 0, "buffer full"},
		"not pub/sub":           {"+OK\r\n", 0, "unexpected"},
		"another kind":          {"*3\r\n$8\r\npmessage\r\n", 0, "pmessage"},
		"empty line":            {"\r\n", 0, "unexpected"},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := redisconn.ReadFeed(strings.NewReader(test.in))
			if n != test.events || !strings.Contains(err.Error(), test.err) {
				t.Errorf("events = %d, %v, want %d, %s", n, err, test.events, test.err)
			}
		})
	}
}

func FuzzFeed(f *testing.F) {
	f.Add("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n")
	f.Add("*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		if n, err := redisconn.ReadFeed(strings.NewReader(in)); err == nil || n > len(in) {
			t.Errorf("ReadFeed() = %d, %v", n, err)
		}
	})
}
