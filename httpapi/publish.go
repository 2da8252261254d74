package httpapi

import (
	"cmp"
	"slices"
	"time"

	"dray"
	"dray/realtime/location"
)

// position takes in the one position of m.
func (c *conn) position(m *message) {
	if !c.caller.MayPublish(m.positions[0].Driver) {
		c.refuse(m.seq, dray.ErrForbidden)
		return
	}
	c.submit(m.positions, slot{seq: m.seq})
}

// refuse answers a position that is not handed on; its seq counts as settled.
func (c *conn) refuse(seq int64, e *dray.Error) {
	if first, ok := c.reserve(1, slot{seq: seq}); ok {
		c.Reported(first, location.Refused, e)
	}
}

// positions takes in a batch. Its ok comes when all are settled; the reader goes on.
func (c *conn) positions(m *message) {
	b := &batch{rejected: slices.Clone(m.rejected)}
	if m.id != nil {
		b.id = slices.Clone(m.id)
	}
	keep := m.positions
	if len(m.rejected) > 0 {
		b.index = slices.Clone(m.index)
	}
	for i := 0; i < len(keep); i++ {
		if !c.caller.MayPublish(keep[i].Driver) {
			if b.index == nil {
				b.index = slices.Clone(m.index)
			}
			b.rejected = append(b.rejected, rejection{b.index[i], dray.ErrForbidden})
			keep, b.index = slices.Delete(keep, i, i+1), slices.Delete(b.index, i, i+1)
			i--
		}
	}
	if b.left = len(keep); b.left == 0 {
		c.mu.Lock()
		c.batchDoneLocked(b)
		c.mu.Unlock()
		return
	}
	c.submit(keep, slot{seq: -1, batch: b})
}

// submit hands positions to the store, as slots like s. It waits while the window is full,
// or while the store is: that is the back-pressure a client feels.
func (c *conn) submit(positions []dray.Position, s slot) {
	first, ok := c.reserve(len(positions), s)
	if !ok {
		return
	}
	if err := c.s.locations.Submit(c.ctx, positions, c, first); err != nil {
		for i := range positions {
			c.Reported(first+uint64(i), location.Refused, err)
		}
	}
}

// reserve takes n places of the window, waiting until they are free; false when the
// connection ends first.
func (c *conn) reserve(n int, s slot) (first uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.window.pending() > 0 && c.window.pending()+n > c.s.cfg.MaxOutstanding && !c.ended && !c.leaving {
		c.room.Wait()
	}
	if c.ended || c.leaving {
		return 0, false
	}
	first = c.window.tail
	for i := range n {
		s.index = i
		c.window.add(s)
	}
	return first, true
}

// Reported is the Store telling what became of a position. See location.Receiver.
func (c *conn) Reported(token uint64, o location.Outcome, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, more := c.window.settle(token)
	if b := s.batch; b != nil {
		switch o {
		case location.Stored:
			b.accepted++
		case location.Superseded:
			b.superseded++
		default:
			at := s.index
			if b.index != nil {
				at = b.index[at]
			}
			b.rejected = append(b.rejected, rejection{at, c.s.shown(err, c.name)})
		}
		if b.left--; b.left == 0 {
			c.batchDoneLocked(b)
		}
	} else if o == location.Refused {
		c.errorLocked(nil, s.seq, c.s.shown(err, c.name))
		c.kickLocked()
	}
	if more {
		c.ackLocked(c.s.cfg.Now())
	}
	c.room.Signal()
}

// batchDoneLocked answers a batch, if an answer is due.
func (c *conn) batchDoneLocked(b *batch) {
	if b.id == nil {
		return
	}
	c.answerLocked(frameOK, func(dst []byte) []byte {
		dst = append(append(dst, `{"type":"ok","id":`...), b.id...)
		dst = append(dst, ',')
		return append(appendCounts(dst, b), '}')
	})
	c.kickLocked()
}

// appendCounts appends the members that tell what became of a batch.
func appendCounts(dst []byte, b *batch) []byte {
	dst = appendInt(dst, `"accepted":`, int64(b.accepted))
	dst = appendInt(dst, `,"superseded":`, int64(b.superseded))
	dst = append(dst, `,"rejected":[`...)
	slices.SortFunc(b.rejected, func(x, y rejection) int { return cmp.Compare(x.index, y.index) })
	for i, r := range b.rejected {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendInt(dst, `{"index":`, int64(r.index))
		dst = dray.AppendString(append(dst, `,"code":`...), string(r.err.Code))
		dst = dray.AppendString(append(dst, `,"message":`...), r.err.Error())
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// settled waits until nothing is on its way to Redis any more and all that was asked is
// answered, or for settleOnExit.
func (c *conn) settled() {
	late := false
	timer := time.AfterFunc(settleOnExit, func() {
		c.mu.Lock()
		late = true
		c.mu.Unlock()
		c.room.Broadcast()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for (c.window.pending() > 0 || c.asking > 0) && !late && !c.ended {
		c.room.Wait()
	}
}
