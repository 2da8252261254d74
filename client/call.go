package client

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"dray"
)

// A call is one request that waits for its answer on one connection.
type call struct {
	id      string
	message []byte
	after   uint64   // not to be sent before the reported positions up to here
	drivers []string // whose attributes the message tells
	answer  chan answer

	subscribes bool // its answer is a snapshot, which is nobody else's answer
}

type answer struct {
	frame frame
	err   error
}

// errLost means that a connection went away before the answer came.
var errLost = errors.New("connection was lost")

// do sends what build makes of an id and returns the answer. A call whose connection is
// lost is made again on the next one, until ctx ends: all that do is used for may be
// repeated. ordered calls are sent after every position reported so far.
func (c *Client) do(ctx context.Context, ordered bool, drivers []string, build func(id string) []byte) (frame, error) {
	c.mu.Lock()
	id := c.newIDLocked()
	var after uint64
	if ordered {
		after = c.window.last()
	}
	c.mu.Unlock()
	message := build(id)
	for {
		cn, err := c.await(ctx)
		if err != nil {
			return frame{}, err
		}
		f, err := cn.roundTrip(ctx, &call{id: id, message: message, after: after, drivers: drivers})
		if !errors.Is(err, errLost) {
			return f, err
		}
	}
}

func (c *Client) newIDLocked() string {
	c.lastID++
	return strconv.FormatUint(c.lastID, 10)
}

// roundTrip fails with errLost where the connection goes before the answer came.
func (cn *conn) roundTrip(ctx context.Context, cl *call) (frame, error) {
	if limit := cn.welcome.Limits.MaxMessageBytes; limit > 0 && len(cl.message) > limit {
		return frame{}, dray.Errorf(dray.CodeTooLarge, "message of %d bytes is over the server's limit of %d", len(cl.message), limit)
	}
	cl.answer = make(chan answer, 1)
	cn.send(cl)
	select {
	case a := <-cl.answer:
		return a.frame, a.err
	case <-cn.lost:
		return frame{}, errLost
	case <-ctx.Done():
		cn.forget(cl)
		return frame{}, context.Cause(ctx)
	}
}

func (cn *conn) send(cl *call) {
	cn.mu.Lock()
	if cl.answer != nil {
		cn.calls[cl.id] = cl
	}
	cn.queue = append(cn.queue, cl)
	cn.mu.Unlock()
	cn.wakeWriter()
}

// forget drops cl; an answer that comes later is nobody's.
func (cn *conn) forget(cl *call) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.calls[cl.id] == cl {
		delete(cn.calls, cl.id)
	}
	cn.queue = slices.DeleteFunc(cn.queue, func(q *call) bool { return q == cl })
}

// answered hands a frame to the call that waits for it, and tells whether one does.
func (cn *conn) answered(id []byte, snapshot bool, a answer) bool {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	cl, ok := cn.calls[string(id)]
	if !ok || snapshot && !cl.subscribes {
		return false
	}
	delete(cn.calls, cl.id)
	cl.answer <- a
	return true
}

// nextCall takes the first call whose positions have been sent.
func (cn *conn) nextCall(sent uint64) *call {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	i := slices.IndexFunc(cn.queue, func(cl *call) bool { return cl.after <= sent })
	if i < 0 {
		return nil
	}
	cl := cn.queue[i]
	cn.queue = slices.Delete(cn.queue, i, i+1)
	return cl
}

// A BatchResult counts what became of a batch.
type BatchResult struct {
	Accepted   int
	Superseded int         // the server has a newer or equal one
	Rejected   []Rejection // by index
}

// A Rejection is one position of a batch that was not taken.
type Rejection struct {
	Index int
	Err   *dray.Error
}

// ReportBatch reports 1 to dray.MaxPositions positions in one message and waits for what
// became of them. It comes after the positions reported before it. Each is counted by
// itself: an invalid one is Rejected, and the others are taken. After a lost connection the
// batch is sent again, and what was stored the first time then counts as Superseded.
//
// It fails with dray.ErrTooLarge where the batch, or its message, is over the limit.
func (c *Client) ReportBatch(ctx context.Context, positions []dray.Position) (BatchResult, error) {
	if len(positions) > dray.MaxPositions {
		return BatchResult{}, dray.Errorf(dray.CodeTooLarge, "%d positions are over the limit of %d", len(positions), dray.MaxPositions)
	}
	var result BatchResult
	valid := make([]dray.Position, 0, len(positions))
	indexes := make([]int, 0, len(positions)) // of valid in positions
	drivers := make([]string, 0, len(positions))
	for i, p := range positions {
		if err := prepare(&p); err != nil {
			result.Rejected = append(result.Rejected, Rejection{Index: i, Err: dray.AsError(err)})
			continue
		}
		valid, indexes, drivers = append(valid, p), append(indexes, i), append(drivers, p.Driver)
	}
	if len(valid) == 0 {
		return result, nil
	}
	c.mu.Lock()
	for i := range valid {
		c.window.fill(&valid[i])
	}
	c.mu.Unlock()
	f, err := c.do(ctx, true, drivers, func(id string) []byte {
		b := append(request("positions", id), `,"positions":[`...)
		for i := range valid {
			if i > 0 {
				b = append(b, ',')
			}
			b = valid[i].AppendJSON(b)
		}
		return append(b, "]}"...)
	})
	if err != nil {
		return BatchResult{}, err
	}
	result.Accepted, result.Superseded = f.Accepted, f.Superseded
	for _, r := range f.Rejected {
		if r.Index >= 0 && r.Index < len(indexes) {
			result.Rejected = append(result.Rejected, Rejection{
				Index: indexes[r.Index],
				Err:   &dray.Error{Code: r.Code, Message: r.Message},
			})
		}
	}
	return result, nil
}

// Nearby returns at most limit drivers inside circle that pass filter, nearest first, each
// with its distance. A limit of 0 means dray.DefaultLimit.
func (c *Client) Nearby(ctx context.Context, circle dray.Circle, limit int, filter dray.Filter) ([]dray.Driver, error) {
	if !circle.Center().Valid() || !(circle.Radius > 0 && circle.Radius <= dray.MaxRadius*1000) {
		return nil, dray.FieldError(dray.CodeBadRequest, "circle", "must be a place on earth and a radius in metres")
	}
	f, err := c.do(ctx, false, nil, func(id string) []byte {
		b := request("nearby", id)
		b = append(b, `,"latitude":`...)
		b = dray.AppendNumber(b, circle.Latitude)
		b = append(b, `,"longitude":`...)
		b = dray.AppendNumber(b, circle.Longitude)
		b = append(b, `,"radius":`...)
		b = dray.AppendNumber(b, circle.Radius)
		if limit != 0 {
			b = append(b, `,"limit":`...)
			b = strconv.AppendInt(b, int64(limit), 10)
		}
		if len(filter) > 0 {
			b = appendMember(b, "filter", filter)
		}
		return append(b, '}')
	})
	return f.Drivers.list, err
}

// Offline takes driver out of every set at once, after the positions reported before it.
// Only a newer position brings it back. An empty driver is the one that the token names.
func (c *Client) Offline(ctx context.Context, driver string) error {
	_, err := c.do(ctx, true, nil, func(id string) []byte {
		b := request("offline", id)
		if driver != "" {
			b = append(b, `,"driver":`...)
			b = dray.AppendString(b, driver)
		}
		return append(b, '}')
	})
	return err
}

// Renew presents a new token before the present one runs out.
func (c *Client) Renew(ctx context.Context, token string) error {
	_, err := c.do(ctx, false, nil, func(id string) []byte {
		b := append(request("auth", id), `,"token":`...)
		return append(dray.AppendString(b, token), '}')
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.cfg.Token = token
	c.mu.Unlock()
	return nil
}
