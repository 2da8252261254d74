package httpapi

import (
	"context"
	"math/rand/v2"
	"time"

	"dray"
)

// sweep looks after every connection: one goroutine and one timer for all of them.
func (s *Server) sweep() {
	defer close(s.swept)
	tick := time.NewTicker(s.sweepEvery())
	defer tick.Stop()
	var all []*conn
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		all = s.all(all[:0])
		now := s.cfg.Now()
		for _, c := range all {
			c.check(now)
		}
		clear(all)
	}
}

func (s *Server) sweepEvery() time.Duration {
	return min(time.Second, max(5*time.Millisecond, min(s.cfg.Heartbeat, s.cfg.StallAfter)/10))
}

// all appends the connections there are.
func (s *Server) all(to []*conn) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		to = append(to, c)
	}
	return to
}

// check ends c when its client has taken nothing, or said nothing though asked, for
// StallAfter, and otherwise has a ping sent where one is due. Time in which we ourselves did
// not read is not the client's.
func (c *conn) check(now time.Time) {
	cfg := &c.s.cfg
	if c.handling.Load() {
		c.wire.heard.Store(now.UnixNano())
	}
	limit := now.Add(c.s.sweepEvery() - cfg.StallAfter).UnixNano() // by the next sweep it would be over
	if since := c.writing.Load(); since != 0 {
		if since <= limit {
			c.s.m.stalled.Inc()
			c.drop()
		}
		return
	}
	if c.wire.heard.Load() <= limit {
		c.s.m.stalled.Inc()
		c.end(dray.CloseTooSlow, "no answer to pings")
		return
	}
	beat := now.Add(-cfg.Heartbeat)
	if min(c.wire.heard.Load(), c.wrote.Load()) > beat.UnixNano() || c.pinged.After(beat) {
		return
	}
	c.pinged = now
	c.mu.Lock()
	defer c.mu.Unlock()
	c.window.rest()
	c.pingDue = true
	c.kickLocked()
}

// Shutdown takes no new connections, says goodbye to those there are once what they
// published is stored, and waits for them; when ctx ends first they are cut off. Close the
// location.Store and the Hub after it.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining.Store(true)
	s.mu.Unlock()
	for _, c := range s.all(nil) {
		c.leave()
	}
	done := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		for _, c := range s.all(nil) {
			c.drop()
			c.wire.Conn.Close()
		}
		<-done
	}
	s.stopOnce.Do(func() { close(s.stop) })
	<-s.swept
	return err
}

// spread is how long a client should wait before it comes back: the more there are, the
// longer, and each another time, so that they do not all come at once.
func (s *Server) spread() time.Duration {
	s.mu.Lock()
	most := min(10*time.Second, max(time.Second, time.Duration(len(s.conns))*time.Millisecond))
	s.mu.Unlock()
	return rand.N(most)
}

// leave has the reader stop, and serve then say goodbye.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	c.wire.SetReadDeadline(time.Now())
	c.room.Broadcast()
}

// bye tells the client that the server drains, when its positions are settled.
func (c *conn) bye() {
	c.settled()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.out = c.appendAckLocked(c.out)
	c.answerLocked(frameGoodbye, func(b []byte) []byte {
		b = append(b, `{"type":"goodbye","reason":"the server restarts"`...)
		b = appendInt(b, `,"retryAfterMs":`, c.s.spread().Milliseconds())
		return append(b, '}')
	})
	c.endLocked(closePayload(dray.CloseRestart, "restart"))
}
