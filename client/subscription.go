package client

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"dray"
)

// An Event is how a subscription's set changed since the last one. To be applied in the
// order Left, Entered, Moved; a driver stands in one of them at most. Attributes are shared:
// read only.
type Event struct {
	// Snapshot means that Entered is the whole set, which replaces all that is held. The
	// first event is one; it comes again after a reconnect or a fault of the server.
	Snapshot bool
	Entered  []dray.Driver // in no order
	Moved    []dray.Driver
	Left     []dray.Leave

	// Of a subscription of stock, instead: the rows that changed, or all of them in a Snapshot;
	// the SKUs that the shape names no longer; the thresholds that were crossed, of several of a SKU the newest.
	Stock       []dray.Stock
	StockLeft   []dray.StockLeave
	StockEvents []dray.StockEvent

	Version    uint64    // of the last frame in it; starts anew after a reconnect
	ServerTime time.Time // of the last frame in it
	Frames     int       // frames of the server that were merged into it
}

// A Subscription keeps the set of live drivers inside a shape, or the stock of a location. Next is for one goroutine,
// the rest for any.
type Subscription struct {
	client   *Client
	id       string
	interval time.Duration
	stop     context.CancelCauseFunc // ends keep
	lived    chan struct{}           // closed at the first snapshot
	ended    chan struct{}           // closed when keep has
	failed   chan error              // what the server said of it unasked
	op       chan struct{}           // holds one token: who has it may talk about this id
	wake     chan struct{}           // has room for one: Next has something to look at

	mu     sync.Mutex // guards the fields below
	shape  dray.Shape
	filter dray.Filter
	on     *conn // where it is live; nil while it is not
	err    error // why it ended
	set    map[string]dray.Driver
	rows   map[string]dray.Stock // SKU -> row; nil unless it is of stock
	check  *checker              // nil unless Config.Strict

	// What Next has not told yet.
	snapshot bool            // all of set
	dirty    map[string]mark // driver, or SKU -> what Next last told of it; unused while snapshot
	events   map[string]dray.StockEvent
	event    Event // version, time and count of the frames since
}

type mark struct {
	had    bool // Next told that it is in the set
	reason dray.LeaveReason
}

// Subscribe watches the drivers inside shape that pass filter, or the stock that it names (without
// a filter), told of at most once an interval (0 is at once). It returns when the first snapshot is here. From then on the
// subscription outlives reconnects, until it is closed.
//
// The server's refusals come back as they are: dray.ErrBadRequest, dray.ErrTooLarge,
// dray.ErrTooManySubscriptions, dray.ErrForbidden, dray.ErrUnavailable.
func (c *Client) Subscribe(ctx context.Context, shape dray.Shape, filter dray.Filter, interval time.Duration) (*Subscription, error) {
	if _, err := appendShape(nil, shape); err != nil {
		return nil, err
	}
	ctxKeep, stop := context.WithCancelCause(c.ctx)
	s := &Subscription{
		client: c, interval: interval, shape: shape, filter: filter,
		stop: stop, ended: make(chan struct{}), failed: make(chan error, 1),
		op: make(chan struct{}, 1), wake: make(chan struct{}, 1), lived: make(chan struct{}),
		set: map[string]dray.Driver{}, dirty: map[string]mark{},
	}
	if shape.Stock != nil {
		s.rows, s.events = map[string]dray.Stock{}, map[string]dray.StockEvent{}
	}
	if c.cfg.Strict {
		s.check = &checker{}
	}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		stop(nil)
		return nil, c.err
	}
	s.id = c.newIDLocked()
	c.subs[s.id] = s
	c.wg.Go(func() { s.keep(ctxKeep) })
	c.mu.Unlock()
	select {
	case <-s.lived:
		return s, nil
	case <-s.ended:
		return nil, s.Err()
	case <-ctx.Done():
		s.withdraw(context.Cause(ctx))
		return nil, context.Cause(ctx)
	}
}

// keep takes the subscription out on each connection, until ctx ends or the server refuses
// it for good. The first time any refusal is for good.
func (s *Subscription) keep(ctx context.Context) {
	defer close(s.ended)
	lived, failed := false, 0
	for {
		cn, err := s.client.await(ctx)
		if err == nil {
			err = s.subscribe(ctx, cn)
		}
		if err == nil {
			if !lived {
				close(s.lived)
			}
			lived, failed = true, 0
			err = s.live(ctx, cn)
		}
		switch {
		case ctx.Err() != nil:
			s.finish(context.Cause(ctx))
			return
		case errors.Is(err, errLost):
		case lived && dray.CodeOf(err).Retryable():
			wait := s.client.backoff(failed, dray.AsError(err).RetryAfter)
			failed++
			s.client.cfg.Logger.Info("subscription was refused, will try again", "error", err, "in", wait)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		default:
			s.finish(err)
			return
		}
	}
}

// subscribe takes the subscription out on cn and returns when its snapshot is here.
func (s *Subscription) subscribe(ctx context.Context, cn *conn) error {
	if err := s.talk(ctx); err != nil {
		return err
	}
	defer s.endTalk()
	s.mu.Lock()
	message := request("subscribe", s.id)
	message, err := appendShape(message, s.shape)
	if len(s.filter) > 0 {
		message = appendMember(message, "filter", s.filter)
	}
	if s.check != nil {
		s.check.reset()
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	message = append(message, `,"intervalMs":`...)
	message = strconv.AppendInt(message, s.interval.Milliseconds(), 10)
	if _, err := cn.roundTrip(ctx, &call{id: s.id, message: append(message, '}'), subscribes: true}); err != nil {
		if ctx.Err() != nil {
			cn.unsubscribe(s.id)
		}
		return err
	}
	s.setOn(cn)
	return nil
}

// live waits while the subscription is live on cn, and returns why it no longer is.
func (s *Subscription) live(ctx context.Context, cn *conn) error {
	defer s.setOn(nil)
	select {
	case <-cn.lost:
		return errLost
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// subscriptionFailed hands an error that no call waits for to the subscription it names.
func (cn *conn) subscriptionFailed(id string, err error) bool {
	cn.client.mu.Lock()
	s := cn.client.subs[id]
	cn.client.mu.Unlock()
	if s == nil {
		return false
	}
	select {
	case s.failed <- err:
	default: // one is enough
	}
	return true
}

// unsubscribe tells the server without waiting.
func (cn *conn) unsubscribe(id string) {
	cn.send(&call{id: id, message: append(request("unsubscribe", id), '}')})
}

// talk waits for the right to send a message about this id: answers name only the id.
func (s *Subscription) talk(ctx context.Context) error {
	select {
	case s.op <- struct{}{}:
		return nil
	case <-s.ended:
		return s.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Subscription) endTalk() { <-s.op }

// setOn notes where the subscription is live. Nobody waits for nil.
func (s *Subscription) setOn(cn *conn) {
	s.mu.Lock()
	s.on = cn
	s.mu.Unlock()
	if cn != nil {
		s.client.mu.Lock()
		s.client.changedLocked()
		s.client.mu.Unlock()
	}
}

// finish makes err what Next and the rest return from now on.
func (s *Subscription) finish(err error) {
	s.client.mu.Lock()
	delete(s.client.subs, s.id)
	s.client.mu.Unlock()
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
}

// withdraw ends the subscription without waiting for the server.
func (s *Subscription) withdraw(cause error) {
	s.mu.Lock()
	on := s.on
	s.mu.Unlock()
	s.stop(cause)
	<-s.ended
	if on != nil {
		on.unsubscribe(s.id)
	}
}

// Err is why the subscription ended, nil while it has not.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the subscription; Next then fails with ErrClosed. It waits until the server
// knows, and where ctx ends first only the telling is left out.
func (s *Subscription) Close(ctx context.Context) error {
	defer s.withdraw(ErrClosed)
	if err := s.talk(ctx); err != nil {
		return nil // ended already, or not worth waiting for
	}
	defer s.endTalk()
	s.mu.Lock()
	on := s.on
	s.on = nil // withdraw need not tell it again
	s.mu.Unlock()
	if on == nil {
		return nil
	}
	_, err := on.roundTrip(ctx, &call{id: s.id, message: append(request("unsubscribe", s.id), '}')})
	if errors.Is(err, errLost) {
		return nil
	}
	return err
}

// Update changes the shape, the filter, or both: nil leaves it, an empty filter selects
// all. The difference comes as the next event. On an error the subscription is as before.
func (s *Subscription) Update(ctx context.Context, shape *dray.Shape, filter *dray.Filter) error {
	message := request("update", s.id)
	if shape != nil {
		var err error
		if message, err = appendShape(message, *shape); err != nil {
			return err
		}
	}
	if filter != nil {
		f := *filter
		if f == nil {
			f = dray.Filter{}
		}
		message = appendMember(message, "filter", f)
	}
	message = append(message, '}')
	for {
		err := s.update(ctx, message, shape, filter)
		if !errors.Is(err, errLost) {
			return err
		}
	}
}

// update makes one attempt, once the subscription is live.
func (s *Subscription) update(ctx context.Context, message []byte, shape *dray.Shape, filter *dray.Filter) error {
	for {
		s.client.mu.Lock()
		changed := s.client.changed
		s.client.mu.Unlock()
		if err := s.talk(ctx); err != nil {
			return err
		}
		s.mu.Lock()
		on := s.on
		s.mu.Unlock()
		if on != nil {
			defer s.endTalk()
			if _, err := on.roundTrip(ctx, &call{id: s.id, message: message}); err != nil {
				return err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if shape != nil {
				s.shape = *shape
			}
			if filter != nil {
				s.filter = *filter
			}
			return nil
		}
		s.endTalk()
		select {
		case <-changed:
		case <-s.ended:
			return s.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
