package httpapi

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"

	"dray"
)

// maxAsking is how many requests to the stock one connection may have under way; at that its
// socket is not read.
const maxAsking = 64

// A namedReply is a reply as a member of a result.
type namedReply interface {
	reply
	name() string
}

// ask has m answered beside the reader: the stock takes a round trip to Redis, or as long as
// replicas take, and positions must not wait for that. Answers come as they are ready, in any
// order.
func (c *conn) ask(m *message) error {
	if c.s.stock == nil {
		return dray.Errorf(dray.CodeNotFound, "no stock is kept here")
	}
	if !c.beginAsking() {
		return nil
	}
	id, typ, order := slices.Clone(m.id), m.typ, m.order
	c.asks.Go(func() { c.askNow(id, typ, order) })
	return nil
}

// beginAsking takes one place of maxAsking, waiting for it; false when the connection ends first.
func (c *conn) beginAsking() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.asking >= maxAsking && !c.ended && !c.leaving {
		c.room.Wait()
	}
	if c.ended || c.leaving {
		return false
	}
	c.asking++
	return true
}

func (c *conn) askNow(id []byte, typ string, o *order) {
	defer func() {
		if p := recover(); p != nil {
			c.s.log.Error("a message made its handler panic", "connection", c.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.end(dray.CloseInternal, "internal error")
		}
	}()
	ctx, cancel := c.within()
	defer cancel()
	out, err := c.s.fill(ctx, c.caller, typ, o)
	var e *dray.Error
	if err != nil {
		e = c.s.shown(err, c.name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking--
	if e != nil {
		c.errorLocked(id, -1, e)
	} else {
		c.answerLocked(frameResult, func(b []byte) []byte {
			b = append(append(b, `{"type":"result","id":`...), id...)
			b = append(append(append(b, `,"`...), out.name()...), `":`...)
			return append(out.AppendJSON(b), '}')
		})
	}
	if !c.ended {
		c.kickLocked()
	}
	c.room.Signal()
}

// fill does what an order of a message asks.
func (s *Server) fill(ctx context.Context, who Caller, typ string, o *order) (namedReply, error) {
	switch typ {
	case typeReserve:
		return s.reserve(ctx, who, reserveRequest(*o))
	case typeCommit:
		return s.commitReservation(ctx, who, partRequest(*o))
	case typeRelease:
		return s.releaseReservation(ctx, who, partRequest(*o))
	case typeExtend:
		return s.extendReservation(ctx, who, extendRequest(*o))
	}
	return s.getStock(ctx, who, stockRequest(*o))
}
