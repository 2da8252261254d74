package httpapi

import (
	"time"

	"dray"
)

// A writeBuffer is what a writer needs while it writes.
type writeBuffer struct {
	b      []byte
	change difference
	text   changeText // of change; while it has more, no other message may be begun
}

// release puts w back for others, without what it holds of a large change.
func (s *Server) release(w *writeBuffer) {
	if cap(w.b) > keptBuffer {
		w.b = nil
	}
	if d, s := &w.change.drivers, &w.change.stock; cap(d.Entered)+cap(d.Moved)+cap(d.Left)+cap(s.Rows)+cap(s.Left)+cap(s.Events) > keptFragments {
		w.change = difference{}
	}
	w.text = changeText{}
	s.writes.Put(w)
}

// largeBuffer is an empty buffer that a large answer has left, or nil.
func (s *Server) largeBuffer() []byte {
	if b, ok := s.large.Get().(*[]byte); ok {
		return *b
	}
	return nil
}

func (s *Server) keepLarge(b []byte) {
	if cap(b) <= keptBuffer {
		s.large.Put(&b)
	}
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
	if c.out == nil {
		c.out = c.s.largeBuffer()
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
	go c.writeLoop(c.s.writes.Get().(*writeBuffer))
}

// flush writes what the reader has answered. When nothing else waits to be read the reader
// does so itself, once: a question is then answered without another goroutine. What is large
// it leaves to the writeLoop after its first piece, for a slow client is to be read meanwhile.
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
	w := c.s.writes.Get().(*writeBuffer)
	switch {
	case !c.writeSome(w):
	case w.text.more():
		c.writers.Add(1)
		go c.writeLoop(w)
		return
	default:
		c.mu.Lock()
		c.writer = false
		if c.pendingLocked() {
			c.kickLocked()
		}
		c.mu.Unlock()
	}
	c.s.release(w)
}

// writeLoop writes until nothing is due.
func (c *conn) writeLoop(w *writeBuffer) {
	defer c.writers.Done()
	defer c.s.release(w)
	for c.writeSome(w) {
		c.mu.Lock()
		if !w.text.more() && !c.pendingLocked() {
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

// writeSome gathers what is due, or the next piece of what was begun, and writes it; false
// when there is nobody to write to. It is for whoever set c.writer.
func (c *conn) writeSome(w *writeBuffer) bool {
	w.b = c.gather(w.b[:0], w)
	err := c.write(w.b)
	if w.text.sent += len(w.b); err == nil {
		if w.text.sent > takenSize {
			c.wire.heard.Store(c.s.cfg.Now().UnixNano()) // no kernel holds so much: the client has taken some
		}
		if cap(w.b) > keptBuffer {
			w.b = nil
		}
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
// the ok was queued. Between the pieces of a large change only pongs and pings may go.
func (c *conn) gather(b []byte, w *writeBuffer) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.text.more() && (!c.ended || c.last != nil) { // else there is nobody to finish it for
		b = c.beatLocked(b)
		c.mu.Unlock()
		b = w.text.appendPiece(b)
		c.mu.Lock()
		if w.text.more() {
			return b
		}
	}
	w.text = changeText{}
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
		some := sub.s.Next(&w.change)
		c.mu.Lock()
		b = c.takeLocked(b)
		if !some || sub.removed || c.ended {
			continue
		}
		c.mu.Unlock()
		w.text = c.s.changeText(sub.id, &w.change)
		b = w.text.appendPiece(b)
		c.mu.Lock()
		if w.text.more() {
			return b
		}
	}
	if c.ended && c.last != nil && !c.lastSent {
		b = controlFrame(b, opClose, c.last)
		c.lastSent = true
	}
	return b
}

// takeLocked appends all that is due but the frames of subscriptions.
func (c *conn) takeLocked(b []byte) []byte {
	if len(b) == 0 && cap(c.out) > firstBuffer {
		b, c.out = c.out, b // a large answer need not be there twice
	} else {
		b = append(b, c.out...)
	}
	if c.out = c.out[:0]; cap(c.out) > firstBuffer { // a connection keeps a small one only
		c.s.keepLarge(c.out)
		c.out = nil
	}
	if c.ended {
		return b
	}
	b = c.beatLocked(b)
	if c.ackDue {
		b = c.appendAckLocked(b)
	}
	c.room.Signal()
	return b
}

// beatLocked appends the pong and the ping that are due.
func (c *conn) beatLocked(b []byte) []byte {
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
