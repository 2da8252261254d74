package httpapi

import (
	"time"

	"dray"
	"dray/realtime/watch"
)

// A writeBuffer is what a writer needs while it writes.
type writeBuffer struct {
	b      []byte
	change watch.Change
}

// answer puts a frame, whose payload build appends, into the queue of answers. It never
// blocks. The reader's own answers are written by flush; others must kick.
func (c *conn) answer(kind frameKind, build func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock() // also when build panics
	c.answerLocked(kind, build)
}

func (c *conn) answerLocked(kind frameKind, build func([]byte) []byte) {
	if c.ended {
		return
	}
	b, start := beginFrame(c.out)
	c.out = endFrame(build(b), start)
	c.s.m.frame(kind)
}

// answerError answers with an error frame. id and seq are those of the message; nil and -1
// when it had none.
func (c *conn) answerError(id []byte, seq int64, e *dray.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errorLocked(id, seq, e)
}

func (c *conn) errorLocked(id []byte, seq int64, e *dray.Error) {
	c.s.m.failed(e.Code)
	c.answerLocked(frameError, func(b []byte) []byte {
		b = append(b, `{"type":"error"`...)
		if id != nil {
			b = append(append(b, `,"id":`...), id...)
		}
		if seq >= 0 {
			b = appendInt(b, `,"seq":`, seq)
		}
		b = append(b, ',')
		b = appendError(b, e, "message")
		return append(b, '}')
	})
}

// kickLocked sees to it that what is due gets written.
func (c *conn) kickLocked() {
	if c.writer || c.abandoned || c.ended && (c.last == nil || c.lastSent) {
		return
	}
	c.writer = true
	c.writers.Add(1)
	go c.writeLoop()
}

// flush writes what the reader has answered. When nothing else waits to be read the reader
// does so itself, once: a question is then answered without another goroutine.
func (c *conn) flush() {
	c.mu.Lock()
	if c.writer || !c.pendingLocked() {
		c.mu.Unlock()
		return
	}
	if c.in.Buffered() > 0 {
		c.kickLocked()
		c.mu.Unlock()
		return
	}
	c.writer = true
	c.mu.Unlock()
	if c.writeSome() {
		c.mu.Lock()
		c.writer = false
		if c.pendingLocked() {
			c.kickLocked()
		}
		c.mu.Unlock()
	}
}

// writeLoop writes until nothing is due.
func (c *conn) writeLoop() {
	defer c.writers.Done()
	for c.writeSome() {
		c.mu.Lock()
		if !c.pendingLocked() {
			c.writer = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

func (c *conn) pendingLocked() bool {
	if c.ended {
		return c.last != nil && !c.lastSent && !c.abandoned
	}
	return len(c.out) > 0 || len(c.dueSubs) > 0 || c.ackDue || c.pingDue || c.pong != nil
}

// writeSome gathers what is due and writes it; false when there is nobody to write to.
// It is for whoever set c.writer.
func (c *conn) writeSome() bool {
	w := c.s.writes.Get().(*writeBuffer)
	w.b = c.gather(w.b[:0], &w.change)
	err := c.write(w.b)
	if cap(w.b) > keptBuffer {
		w.b = nil
	}
	c.s.writes.Put(w)
	if err == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned, c.writer, c.lastSent = true, false, false
	c.out, c.dueSubs = nil, nil
	c.endLocked(nil)
	return false
}

// gather appends due frames to b. Answers go before the frames of subscriptions, which
// take turns: so the ok of an update is before its delta, which Next cannot have known before
// the ok was queued.
func (c *conn) gather(b []byte, change *watch.Change) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		b = c.takeLocked(b)
		if c.ended || len(c.dueSubs) == 0 || len(b) >= writeSize {
			break
		}
		sub := c.dueSubs[0]
		c.dueSubs[0] = nil
		if c.dueSubs = c.dueSubs[1:]; len(c.dueSubs) == 0 {
			c.dueSubs = nil
		}
		sub.queued = false
		if sub.removed {
			continue
		}
		c.mu.Unlock()
		some := sub.s.Next(change)
		c.mu.Lock()
		b = c.takeLocked(b)
		if !some || sub.removed || c.ended {
			continue
		}
		c.mu.Unlock()
		b = c.s.appendChange(b, sub.id, change)
		c.mu.Lock()
	}
	if c.ended && c.last != nil && !c.lastSent {
		b = controlFrame(b, opClose, c.last)
		c.lastSent = true
	}
	return b
}

// takeLocked appends all that is due but the frames of subscriptions.
func (c *conn) takeLocked(b []byte) []byte {
	b = append(b, c.out...)
	if c.out = c.out[:0]; cap(c.out) > firstBuffer {
		c.out = nil
	}
	if c.ended {
		return b
	}
	if c.pong != nil {
		b = controlFrame(b, opPong, c.pong)
		c.pong = nil
	}
	if c.pingDue {
		b = controlFrame(b, opPing, nil)
		c.pingDue = false
	}
	if c.ackDue {
		b = c.appendAckLocked(b)
	}
	c.room.Signal()
	return b
}

// write writes b in pieces, so that the sweep sees a slow client take some of it.
func (c *conn) write(b []byte) error {
	c.s.m.bytesOut.Add(float64(len(b)))
	for len(b) > 0 {
		piece := b[:min(len(b), sendBuffer)]
		c.writing.Store(c.s.cfg.Now().UnixNano())
		_, err := c.wire.Conn.Write(piece)
		c.wrote.Store(c.writing.Swap(0))
		if err != nil {
			return err
		}
		b = b[len(piece):]
	}
	return nil
}

// appendChange appends the frame of a subscription: a snapshot or a delta.
func (s *Server) appendChange(b []byte, id []byte, change *watch.Change) []byte {
	b, start := beginFrame(b)
	if change.Snapshot {
		s.m.frame(frameSnapshot)
		b = append(b, `{"type":"snapshot","id":`...)
	} else {
		s.m.frame(frameDelta)
		b = append(b, `{"type":"delta","id":`...)
	}
	now := s.cfg.Now().UnixMilli()
	b = append(b, id...)
	b = appendInt(b, `,"version":`, int64(change.Version))
	b = appendInt(b, `,"serverTime":`, now)
	if len(change.Moved) > 0 {
		s.m.delivered(change.Moved[0], now)
	}
	if change.Snapshot {
		b = appendList(b, `,"drivers":[`, change.Entered)
		return endFrame(append(b, '}'), start)
	}
	if len(change.Left) > 0 {
		b = append(b, `,"left":[`...)
		for i, leave := range change.Left {
			if i > 0 {
				b = append(b, ',')
			}
			b = dray.AppendString(append(b, `{"driver":`...), leave.Driver)
			b = dray.AppendString(append(b, `,"reason":`...), string(leave.Reason))
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	if len(change.Entered) > 0 {
		b = appendList(b, `,"entered":[`, change.Entered)
	}
	if len(change.Moved) > 0 {
		b = appendList(b, `,"moved":[`, change.Moved)
	}
	return endFrame(append(b, '}'), start)
}

// appendList appends fragments of JSON as the list that open begins.
func appendList(b []byte, open string, fragments [][]byte) []byte {
	b = append(b, open...)
	for i, f := range fragments {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, f...)
	}
	return append(b, ']')
}

// ackLocked makes an ack due, now or when the last one is ackEvery ago.
func (c *conn) ackLocked(now time.Time) {
	if c.ackDue || c.ackTimed || c.ended || c.window.covered <= c.acked {
		return
	}
	wait := ackEvery - now.Sub(c.ackedAt)
	if wait <= 0 {
		c.ackDue = true
		c.kickLocked()
		return
	}
	c.ackTimed = true
	if c.ackTimer == nil {
		c.ackTimer = time.AfterFunc(wait, c.ackTime)
		return
	}
	c.ackTimer.Reset(wait)
}

func (c *conn) ackTime() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ackTimed = false
	if !c.ended && c.window.covered > c.acked {
		c.ackDue = true
		c.kickLocked()
	}
}

func (c *conn) appendAckLocked(b []byte) []byte {
	c.ackDue = false
	if c.window.covered <= c.acked {
		return b
	}
	c.acked, c.ackedAt = c.window.covered, c.s.cfg.Now()
	c.s.m.frame(frameAck)
	b, start := beginFrame(b)
	b = appendInt(b, `{"type":"ack","seq":`, c.acked)
	return endFrame(append(b, '}'), start)
}
