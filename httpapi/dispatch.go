package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
	"dray/realtime/watch"
)

// handle takes one message from bytes to its answer. It fails when the connection is to end.
func (c *conn) handle(b []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.s.log.Error("a message made its handler panic", "connection", c.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	now := c.s.cfg.Now()
	verdict, wait := c.throttle.admit(now, messageCost(len(b)))
	switch verdict {
	case flood:
		return errFlooding
	case pass:
		if wait > 0 {
			if !c.pause(wait) {
				return nil
			}
			c.throttle.waited(c.s.cfg.Now())
		}
	}
	m := &c.message
	c.decoder.now = c.s.cfg.Now()
	err = c.decoder.decode(b, m)
	switch {
	case errors.Is(err, errNotUTF8):
		return err
	case verdict == refuse:
		c.s.m.rateLimited.Inc()
		err = &dray.Error{Code: dray.CodeRateLimited, Message: "more messages than are allowed", RetryAfter: wait}
	case err == nil:
		c.s.m.message(m.typ)
		c.throttle.charge(c.decoder.now, workCost(m))
		err = c.dispatch(m)
	case misformed(err) && c.bad.add(now):
		return errTooManyBad
	}
	if err != nil {
		c.fail(m, c.s.shown(err, c.name))
	}
	c.flush()
	c.yield()
	return nil
}

// misformed tells whether a message was refused for not being a message of the contract at
// all, rather than for one of its values.
func misformed(err error) bool {
	e := dray.AsError(err)
	return e.Code == dray.CodeBadRequest && (len(e.Details) == 0 || e.Details[0].Field == "type")
}

// fail answers m with an error; the seq of a position counts as settled then.
func (c *conn) fail(m *message, e *dray.Error) {
	if m.typ == typePosition && m.seq > c.lastSeq {
		c.lastSeq = m.seq
		c.refuse(m.seq, e)
		return
	}
	c.answerError(m.id, m.seq, e)
}

// pause is time in which nothing is read; false when the connection ends first.
func (c *conn) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// yield waits while the client has more answers to take than the queue is to hold.
func (c *conn) yield() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) >= maxQueued && !c.ended && !c.leaving {
		c.room.Wait()
	}
}

// dispatch hands a message to its handler. An error is answered by the caller.
func (c *conn) dispatch(m *message) error {
	switch m.typ {
	case typePosition:
		if m.seq >= 0 {
			if m.seq <= c.lastSeq {
				return dray.FieldError(dray.CodeBadRequest, "seq", "must grow: %d was sent before", c.lastSeq)
			}
			c.lastSeq = m.seq
		}
		c.position(m)
		return nil
	case typePositions:
		c.positions(m)
		return nil
	case typeOffline:
		return c.offline(m)
	case typeSubscribe:
		return c.subscribe(m)
	case typeUpdate:
		return c.update(m)
	case typeUnsubscribe:
		return c.unsubscribe(m)
	case typeNearby:
		return c.nearby(m)
	case typeStock, typeReserve, typeCommit, typeRelease, typeExtend:
		return c.ask(m)
	case typeClaim:
		return c.claim(m)
	case typeUnclaim:
		return c.unclaim(m)
	case typeAuth:
		c.ok(m.id) // nobody needs a token yet
		return nil
	}
	return dray.FieldError(dray.CodeBadRequest, "type", "%s is not served here", m.typ)
}

// ok answers that what id asked for was done; without an id nobody wants to know.
func (c *conn) ok(id []byte) {
	if id == nil {
		return
	}
	c.answer(frameOK, func(b []byte) []byte {
		return append(append(append(b, `{"type":"ok","id":`...), id...), '}')
	})
}

// within bounds a question to the domain.
func (c *conn) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.ctx, c.s.cfg.RequestTimeout)
}

func (c *conn) offline(m *message) error {
	if m.driver == "" {
		return dray.FieldError(dray.CodeBadRequest, "driver", "is missing")
	}
	if !c.caller.MayPublish(m.driver) {
		return dray.ErrForbidden
	}
	ctx, cancel := c.within()
	defer cancel()
	if err := c.s.locations.Offline(ctx, m.driver); err != nil {
		return err
	}
	c.ok(m.id)
	return nil
}

func (c *conn) nearby(m *message) error {
	if !c.caller.MayWatch() {
		return dray.ErrForbidden
	}
	ctx, cancel := c.within()
	defer cancel()
	if m.limit == 0 {
		m.limit = dray.DefaultLimit
	}
	hits, err := c.s.hub.Nearby(ctx, m.center, m.radius, m.limit, m.filter)
	if err != nil {
		return err
	}
	c.answer(frameResult, func(b []byte) []byte {
		b = append(append(b, `{"type":"result","id":`...), m.id...)
		b = append(b, ',')
		return append(appendHits(b, hits), '}')
	})
	return nil
}

// appendHits appends the member drivers.
func appendHits(b []byte, hits []watch.Hit) []byte {
	b = slices.Grow(b, 256*len(hits)) // once: drivers are seldom longer
	b = append(b, `"drivers":[`...)
	for i, hit := range hits {
		if i > 0 {
			b = append(b, ',')
		}
		b = hit.AppendJSON(b)
	}
	return append(b, ']')
}

// idKey is the same for ids that are the same JSON value, however they are spelled.
func idKey(id []byte) string {
	if string(id) == "-0" {
		return "0"
	}
	if bytes.IndexByte(id, '\\') < 0 {
		return string(id)
	}
	text, err := jsontext.AppendUnquote([]byte{'"'}, id)
	if err != nil {
		return string(id) // can't be: it was checked
	}
	return string(append(text, '"'))
}

// A sub is one live subscription of a connection. Its fields are guarded by conn.mu.
type sub struct {
	id      []byte
	s       subscription // nil until Subscribe has returned
	early   bool         // it was due before that
	queued  bool         // it stands in conn.dueSubs
	removed bool         // nothing more may be said of it
}

func (c *conn) subscribe(m *message) error {
	x := &sub{id: slices.Clone(m.id)}
	c.mu.Lock()
	_, taken := c.subs[idKey(m.id)]
	count := len(c.subs)
	c.mu.Unlock()
	switch {
	case taken:
		return dray.ErrSubscriptionExists
	case count >= c.s.cfg.MaxSubscriptions:
		return dray.ErrTooManySubscriptions
	}
	if m.interval < 0 {
		m.interval = dray.DefaultInterval
	}
	ctx, cancel := c.within()
	defer cancel()
	open := c.watchDrivers
	if m.shape.Stock != nil {
		open = c.watchStock
	}
	s, err := open(ctx, m, func() { c.due(x) })
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs == nil {
		c.subs = map[string]*sub{}
	}
	x.s = s
	c.subs[idKey(x.id)] = x // also when the connection has ended: serve closes it
	c.s.m.subscriptions.Inc()
	if x.early {
		c.dueLocked(x)
	}
	return nil
}

// due marks that x has something to say. It is called from any goroutine.
func (c *conn) due(x *sub) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dueLocked(x)
}

func (c *conn) dueLocked(x *sub) {
	switch {
	case x.queued || x.removed || c.ended:
	case x.s == nil:
		x.early = true
	default:
		x.queued = true
		c.dueSubs = append(c.dueSubs, x)
		c.kickLocked()
	}
}

// sub finds a live subscription.
func (c *conn) sub(id []byte) (*sub, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x, ok := c.subs[idKey(id)]; ok {
		return x, nil
	}
	return nil, dray.Errorf(dray.CodeNotFound, "no subscription of this id")
}

func (c *conn) update(m *message) error {
	x, err := c.sub(m.id)
	if err != nil {
		return err
	}
	ctx, cancel := c.within()
	defer cancel()
	var filter *dray.Filter
	if m.filter != nil {
		filter = &m.filter
	}
	id := bytes.Clone(m.id)
	return x.s.Update(ctx, m.shape, filter, func() { c.ok(id) })
}

func (c *conn) unsubscribe(m *message) error {
	x, err := c.sub(m.id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	x.removed = true
	delete(c.subs, idKey(m.id))
	c.mu.Unlock()
	x.s.Close()
	c.s.m.subscriptions.Dec()
	c.ok(m.id)
	return nil
}
