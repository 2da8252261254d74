package httpapi

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const seldomEvery = 10 * time.Second

// A seldom lets a log line through once in seldomEvery, and counts the others.
type seldom struct {
	mu      sync.Mutex // guards the fields below
	last    time.Time
	skipped int
}

// log logs the line, with how many like it were left out before.
func (x *seldom) log(s *Server, level slog.Level, message string, args ...any) {
	now := s.cfg.Now()
	x.mu.Lock()
	if !x.last.IsZero() && now.Sub(x.last) < seldomEvery {
		x.skipped++
		x.mu.Unlock()
		return
	}
	if x.skipped > 0 {
		args = append(args, "more", x.skipped)
	}
	x.last, x.skipped = now, 0
	x.mu.Unlock()
	s.log.Log(context.Background(), level, message, args...)
}

// A serverLog takes what net/http logs. Nearly all of it is a client's fault; that
// connections can't be accepted, as when no more files may be open, is ours.
type serverLog struct{ s *Server }

func (l serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.Contains(text, "Accept error") {
		l.s.accepts.log(l.s, slog.LevelError, "connections cannot be accepted", "error", text)
	} else {
		l.s.log.Debug(text)
	}
	return len(line), nil
}

// spareFiles are for Redis, the listener and the like.
const spareFiles = 64
