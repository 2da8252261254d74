package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
)

// How requests become script calls. A location gathers what arrives while a call is in
// flight (natural batching): one hot SKU is bound by how fast Redis works through carts, not
// by round trips. Idle: a request is sent at once.
const (
	callTimeout = 2 * time.Second
	inFlight    = 2    // calls of one location at once, the second only for fullBatch requests or more
	fullBatch   = 32   // requests
	maxBatch    = 512  // requests of a call
	maxLines    = 1500 // lines of carts in a call: Lua's unpack bears 8 000 names
	dueBound    = 256  // due reservations settled in a call
	maxIdle     = 8    // goroutines of a Store that wait for a call to make
	maxWaits    = 16   // calls of a node at once that wait for as many replicas as it asks for by itself
	maxLonger   = 8    // those that wait for more; both leave some of the 32 connections for pipelines
)

// A lane is where requests wait: those of a location that want as many replicas. A call that
// waits for replicas holds up no request that does not.
type lane struct {
	location string
	replicas int
}

// A queue is what waits in one lane.
type queue struct {
	store *Store
	lane
	keys []string // of apply.lua
	head []string // its first arguments

	mu      sync.Mutex // guards the fields below
	waiting []*op
	calls   int  // in flight
	dead    bool // no longer in Store.queues
}

func newQueue(s *Store, l lane) *queue {
	head := append([]string{s.redis.PublishCommand(), s.keys.feed(l.location), l.location}, s.head...)
	return &queue{store: s, lane: l, keys: s.keys.ofApply(l.location), head: append(head, flag(l.replicas > 0))}
}

// do sends o to its location and waits for its answer.
func (s *Store) do(ctx context.Context, location string, o *op) error {
	if err := s.pending.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("%w: %w", dray.ErrUnavailable, err)
	}
	defer s.pending.Release(1)
	o.done, _ = s.dones.Get().(chan struct{})
	if o.done == nil {
		o.done = make(chan struct{}, 1)
	}
	if err := s.enqueue(lane{location, o.ref.replicas}, o); err != nil {
		return err
	}
	select {
	case <-o.done:
		s.dones.Put(o.done) // nobody else has it any more
		return o.err
	case <-ctx.Done():
		if o.state.CompareAndSwap(opWaiting, opGivenUp) {
			return fmt.Errorf("%w, nothing was sent: %w", dray.ErrUnavailable, ctx.Err())
		}
		return fmt.Errorf("%w, it may have been done: %w", dray.ErrUnavailable, ctx.Err())
	}
}

// errClosed is the answer after Close.
var errClosed = dray.Errorf(dray.CodeUnavailable, "this node is stopping")

func (s *Store) enqueue(l lane, o *op) error {
	for {
		s.mu.Lock()
		if s.closing {
			s.mu.Unlock()
			return errClosed
		}
		q := s.queues[l]
		if q == nil {
			q = newQueue(s, l)
			s.queues[l] = q
		}
		s.running.Add(1) // before Close waits
		s.mu.Unlock()
		taken := q.take(o)
		s.running.Done()
		if taken {
			return nil
		}
	}
}

// take takes o in; false when the queue's last call has ended and it is no longer in the Store.
func (q *queue) take(o *op) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dead {
		return false
	}
	q.waiting = append(q.waiting, o)
	q.sendLocked()
	return true
}

// sendLocked begins calls for what waits.
func (q *queue) sendLocked() {
	for batch := q.nextLocked(); len(batch) > 0; batch = q.nextLocked() {
		q.store.running.Add(1)
		q.store.work(job{q, batch})
	}
}

// A job is a call to make.
type job struct {
	queue *queue
	batch []*op
}

// work gives j to a goroutine. Some stay when they have nothing to do, for the stack of a new one
// would have to grow first: 10 us.
func (s *Store) work(j job) {
	select {
	case s.jobs <- j:
		return
	default:
	}
	s.workers.Go(func() {
		for {
			j.queue.send(j.batch)
			j = job{} // its requests are not kept while nothing comes
			if s.idle.Add(1) > maxIdle {
				s.idle.Add(-1)
				return
			}
			select {
			case j = <-s.jobs:
				s.idle.Add(-1)
			case <-s.ctx.Done():
				return
			}
		}
	})
}

// nextLocked is what the next call takes, nothing when there is none to make now.
func (q *queue) nextLocked() (batch []*op) {
	for len(batch) == 0 && len(q.waiting) > 0 && q.calls < inFlight && (q.calls == 0 || len(q.waiting) >= fullBatch) {
		batch = q.takeLocked()
	}
	if len(batch) > 0 {
		q.calls++
	}
	return batch
}

// takeLocked takes the next call's requests.
func (q *queue) takeLocked() (batch []*op) {
	lines := 0
	rest := q.waiting[:0]
	for _, o := range q.waiting {
		switch {
		case len(batch) >= maxBatch || lines >= maxLines:
			rest = append(rest, o)
		case o.state.CompareAndSwap(opWaiting, opSent):
			batch = append(batch, o)
			lines += 1 + len(o.items)
		}
	}
	clear(q.waiting[len(rest):])
	q.waiting = rest
	return batch
}

// send makes the call for a batch, tells its callers, and goes on with what came meanwhile.
func (q *queue) send(batch []*op) {
	s := q.store
	defer s.running.Done()
	for len(batch) > 0 {
		back := q.call(batch)
		if len(batch) > 1 {
			runtime.Gosched() // those who were answered may have more to ask: one call for all of them
		}
		q.mu.Lock()
		q.calls--
		if len(back) > 0 { // what is due was too much for one call: there is room for more now
			q.waiting = append(back, q.waiting...)
		}
		batch = q.nextLocked()
		q.sendLocked()
		q.mu.Unlock()
	}
	s.forget(q)
}

// forget takes a queue out of the Store if it is idle.
func (s *Store) forget(q *queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.calls == 0 && len(q.waiting) == 0 && !q.dead {
		q.dead = true
		delete(s.queues, q.lane)
	}
}

// call runs apply.lua for a batch and settles its requests but for those that must be sent again.
func (q *queue) call(batch []*op) (back []*op) {
	s := q.store
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	acked, err := q.run(ctx, batch)
	s.metrics.call(len(batch), time.Since(began))
	for _, o := range batch {
		switch {
		case err != nil:
			o.err = fmt.Errorf("stock of %s: %w", q.location, err)
		case o.answer == again:
			o.state.Store(opWaiting)
			back = append(back, o)
			continue
		default:
			o.acked = acked
			if o.err = failure(o.answer); o.answer[0] == 'U' {
				s.unreadable(q.location, cmp.Or(o.answer[1:], o.sku, o.id))
			}
			s.metrics.settled(o)
		}
		o.done <- struct{}{}
	}
	return back
}

// run is the round trip, with a WAIT behind it where replicas are asked for. It sets the answers
// of batch and returns how many replicas have it.
func (q *queue) run(ctx context.Context, batch []*op) (acked int, err error) {
	acked, err = q.try(ctx, batch, false)
	if errors.Is(err, errContended) {
		acked, err = q.try(ctx, batch, true)
	}
	return acked, err
}

// errContended: carts of the batch want the same last units, and nothing was done.
var errContended = errors.New("to be asked in the order of arrival")

// try is run, with all requests in the order of arrival or with simple holds in groups.
func (q *queue) try(ctx context.Context, batch []*op, ordered bool) (acked int, err error) {
	s, replicas := q.store, q.replicas
	e := encoder{ordered: ordered}
	for _, o := range batch {
		e.add(o)
	}
	args := e.args(q.head)
	var answers []string
	if replicas == 0 {
		answers, err = s.redis.Run(ctx, s.scripts.apply, q.keys, args...).StringSlice()
	} else {
		waits := s.waits
		if replicas > s.cfg.Replicas {
			waits = s.longer
		}
		if err := waits.Acquire(ctx, 1); err != nil {
			return 0, fmt.Errorf("%w, nothing was sent: %w", dray.ErrUnavailable, err)
		}
		defer waits.Release(1)
		var cmd *redis.Cmd
		cmd, acked = s.redis.RunWait(ctx, s.scripts.apply, replicas, s.cfg.WaitTimeout, q.keys, args...)
		answers, err = cmd.StringSlice()
	}
	if err != nil {
		return 0, err
	}
	if len(answers) == 1 && answers[0] == "O" {
		return 0, errContended
	}
	if len(answers) == 0 || !e.answers(answers[1:]) {
		return 0, dray.Errorf(dray.CodeInternal, "apply.lua answered a batch of %d by %d texts", len(batch), len(answers))
	}
	s.metrics.expire(answers[0])
	return acked, nil
}
