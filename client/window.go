package client

import (
	"context"
	"math"
	"time"

	"dray"
)

// A Refusal is a reported position that the server did not take.
type Refusal struct {
	Position dray.Position
	Err      *dray.Error
}

// window holds the reported positions that are not acknowledged, oldest first. Positions
// are numbered from 1 for the life of the Client; the number is the seq on the wire.
// Guarded by Client.mu.
type window struct {
	first   uint64 // number of entries[0]; what is before it is acknowledged
	sent    uint64 // number of the last one that was sent on the present connection
	entries []entry

	// attributes is what was last reported of each driver. The server takes omitted
	// attributes to be the last ones of its connection, which a reconnect would forget.
	attributes map[string]map[string]string // driver -> attributes
}

type entry struct {
	position dray.Position // its attributes are never omitted
	refused  bool          // told to Config.Refused already, not to be sent again
}

func (w *window) last() uint64 { return w.first + uint64(len(w.entries)) - 1 }

// rewind makes everything that is not acknowledged due again, for a new connection.
func (w *window) rewind() { w.sent = w.first - 1 }

// fill gives p the attributes that it omits, and remembers those that it has.
func (w *window) fill(p *dray.Position) {
	if p.Attributes != nil {
		w.attributes[p.Driver] = p.Attributes
	} else {
		p.Attributes = w.attributes[p.Driver]
	}
}

// next is the first position that was not sent on this connection.
func (w *window) next() (seq uint64, p dray.Position, ok bool) {
	for w.sent < w.last() {
		w.sent++
		if e := &w.entries[w.sent-w.first]; !e.refused {
			return w.sent, e.position, true
		}
	}
	return 0, dray.Position{}, false
}

// ack drops the positions up to seq, and those after it that were refused. It tells
// whether there is more room now.
func (w *window) ack(seq uint64) bool {
	n := 0
	for n < len(w.entries) && (w.first+uint64(n) <= min(seq, w.sent) || w.entries[n].refused) {
		n++
	}
	if n == 0 {
		return false
	}
	clear(w.entries[:n])
	w.entries = w.entries[n:]
	w.first += uint64(n)
	w.sent = max(w.sent, w.first-1)
	return true
}

// refuse marks position seq as refused and returns it; false where it is unknown.
func (w *window) refuse(seq uint64) (dray.Position, bool) {
	if seq < w.first || seq > w.sent || w.entries[seq-w.first].refused {
		return dray.Position{}, false
	}
	e := &w.entries[seq-w.first]
	e.refused = true
	return e.position, true
}

// Report streams p. It returns once p is queued, which waits only while Config.Window
// positions are unacknowledged, and fails with ctx's error if ctx ends first. After a
// reconnect it is sent again unless it was acknowledged. A zero Timestamp becomes now.
// p.Attributes must not be changed afterwards; nil keeps the driver's last ones, which the
// Client therefore remembers for every driver that ever had any.
//
// A Client keeps to the messages a second that its server allows (2000 by default): who has
// more than that calls ReportBatch.
//
// It fails with dray.ErrInvalidPosition or dray.ErrBadRequest where p can be seen to be
// wrong from here; what the server refuses goes to Config.Refused.
func (c *Client) Report(ctx context.Context, p dray.Position) error {
	if err := prepare(&p); err != nil {
		return err
	}
	c.mu.Lock()
	for c.err == nil && len(c.window.entries) >= c.cfg.window() {
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.window.fill(&p)
	c.window.entries = append(c.window.entries, entry{position: p})
	if c.conn != nil {
		c.conn.wakeWriter()
	}
	return nil
}

// Flush waits until every position that was reported before it is acknowledged or refused.
func (c *Client) Flush(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for last := c.window.last(); c.window.first <= last; {
		if c.err != nil {
			return c.err
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
			c.mu.Lock()
		case <-ctx.Done():
			c.mu.Lock()
			return context.Cause(ctx)
		}
	}
	return nil
}

// Pending is the number of reported positions that are not acknowledged.
func (c *Client) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.window.entries)
}

// acked takes the server's word that every position up to seq is settled.
func (c *Client) acked(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.window.ack(seq) {
		c.changedLocked()
	}
}

func (c *Client) refused(seq uint64, err *dray.Error) {
	c.mu.Lock()
	p, ok := c.window.refuse(seq)
	if ok && c.window.ack(0) { // at the front it need not wait for an ack
		c.changedLocked()
	}
	c.mu.Unlock()
	switch {
	case !ok:
	case c.cfg.Refused != nil:
		c.cfg.Refused(Refusal{Position: p, Err: err})
	default:
		c.cfg.Logger.Warn("position was refused", "driver", p.Driver, "code", err.Code, "error", err)
	}
}

// prepare stamps p, and refuses what JSON can't hold or any server would refuse. Whether
// the timestamp lies in the future is for the server's clock to say. An empty driver is
// the one that the token names.
func prepare(p *dray.Position) error {
	if p.Timestamp.IsZero() {
		p.Timestamp = time.Now()
	}
	q := *p
	if q.Driver == "" {
		q.Driver = "-"
	}
	if math.IsNaN(q.Latitude) || math.IsNaN(q.Longitude) {
		return dray.FieldError(dray.CodeInvalidPosition, "latitude", "and longitude must be finite")
	}
	return q.Validate(q.Timestamp)
}
