package httpapi

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A logged is a log to look into.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// What would be logged with every probe, or every connection, is logged once in ten seconds.
func TestRepeatedLinesAreCounted(t *testing.T) {
	out := new(logged)
	now := time.Unix(1000, 0)
	s, _ := serveWith(t, Config{Logger: slog.New(slog.NewTextHandler(out, nil)), Now: func() time.Time { return now }, Heartbeat: time.Hour, StallAfter: time.Hour}, new(heldStore), &loudHub{})
	s.ping = func(context.Context) error { return errors.New("gone") }
	out.take()
	probe := func() {
		s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/health/redis", nil))
	}
	accept := func() {
		s.HTTPServer().ErrorLog.Printf("http: Accept error: accept tcp: too many open files; retrying in 5ms")
	}
	for range 5 {
		probe()
		accept()
	}
	s.HTTPServer().ErrorLog.Printf("http: TLS handshake error from somebody")
	first := out.take()
	if strings.Count(first, "level=WARN") != 1 || strings.Count(first, "level=ERROR") != 1 || strings.Count(first, "\n") != 2 || !strings.Contains(first, "too many open files") {
		t.Errorf("5 failures are logged as %s, want one line each", first)
	}
	now = now.Add(seldomEvery)
	probe()
	accept()
	if got := out.take(); strings.Count(got, "more=4") != 2 {
		t.Errorf("ten seconds later %s, want the 4 others counted", got)
	}
}

func TestTooFewFilesAreTold(t *testing.T) {
	files, ok := openFiles()
	if !ok || files > 1<<40 {
		t.Skip("no limit here")
	}
	for connections, want := range map[int]bool{int(files): true, int(files) - spareFiles: false} {
		out := new(logged)
		serveWith(t, Config{Logger: slog.New(slog.NewTextHandler(out, nil)), MaxConnections: connections}, new(heldStore), &loudHub{})
		if got := strings.Contains(out.take(), "fewer files"); got != want {
			t.Errorf("with %d files for %d connections it is told: %v, want %v", files, connections, got, want)
		}
	}
}

// Ids are told apart by what they say, not by how they are spelled.
func TestIDKey(t *testing.T) {
	same := [][]string{{`"1"`, `"\u0031"`}, {`1`}, {`0`, `-0`}, {`"a\"b"`, `"a\u0022b"`}, {`"é"`, `"\u00e9"`}, {`"\\"`}, {`"\\\\"`}}
	seen := map[string]int{}
	for i, ids := range same {
		for _, id := range ids {
			key := idKey([]byte(id))
			if j, ok := seen[key]; ok && j != i {
				t.Errorf("%s is the same as one of %v", id, same[j])
			}
			seen[key] = i
		}
	}
	if len(seen) != len(same) {
		t.Errorf("%d ids told apart, want %d: %v", len(seen), len(same), seen)
	}
}
