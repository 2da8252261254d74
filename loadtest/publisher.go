package loadtest

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"dray"
)

// A publisher is one connection that reports the positions of its drivers: those of the
// fleet whose number is first, first+stride and so on.
type publisher struct {
	run           *run
	fleet         *fleet
	socket        *socket
	shard         int
	first, stride int
	onSent        func(driver int, p place, sent int64) // nil: nobody asks

	turn  int    // the driver that reports next; of the sender alone
	sends int    // frames so far; of the sender alone
	frame []byte // of the sender alone

	mu          sync.Mutex // guards the fields below, and fleet.acked of its drivers
	slots       []slot     // frames under way: at id modulo its length, or at seq
	seq, acked  int64      // of single positions; the first has 1
	outstanding int        // frames sent and not answered
	tally       tally
}

// A slot is one frame under way.
type slot struct {
	busy bool
	id   int
	sent int64 // by nanos
	list []sent
}

// A sent is one position of a frame.
type sent struct {
	driver  int
	refused bool
	place
}

// A tally is what became of positions, over a whole run.
type tally struct {
	accepted, superseded, refused int64
	stray                         int64 // answers to nothing that was asked
	codes                         map[dray.Code]int64
}

func (t *tally) refuse(code dray.Code, n int) {
	t.refused += int64(n)
	if t.codes == nil {
		t.codes = map[dray.Code]int64{}
	}
	t.codes[code] += int64(n)
}

func (t *tally) add(o *tally) {
	t.accepted += o.accepted
	t.superseded += o.superseded
	t.refused += o.refused
	t.stray += o.stray
	for code, n := range o.codes {
		t.refuse(code, int(n))
		t.refused -= n
	}
}

// openPublishers connects n publishers that share the fleet among them, each with room for
// so many frames of so many positions.
func (r *run) openPublishers(f *fleet, n, frames, batch int) ([]*publisher, error) {
	sockets, err := r.dial(n)
	if err != nil {
		return nil, err
	}
	all := make([]*publisher, n)
	for i := range all {
		p := &publisher{run: r, fleet: f, socket: sockets[i], shard: i, first: i, stride: n, turn: i, slots: make([]slot, frames)}
		for k := range p.slots {
			p.slots[k].list = make([]sent, 0, batch)
		}
		all[i] = p
	}
	return all, nil
}

// next is the driver whose turn it is.
func (p *publisher) next() int {
	i := p.turn
	if p.turn += p.stride; p.turn >= len(p.fleet.cars) {
		p.turn = p.first
	}
	return i
}

// batch sends a frame of n positions as slot k, which is free. Each has an id of its own.
func (p *publisher) batch(k, n int) error {
	p.sends++
	id := p.sends*len(p.slots) + k
	b := append(begin(p.frame), `{"type":"positions","id":`...)
	b = strconv.AppendInt(b, int64(id), 10)
	b = append(b, `,"positions":[`...)
	now := nanos()
	ms := time.Now().UnixMilli()
	p.mu.Lock()
	s := &p.slots[k]
	s.busy, s.id, s.sent, s.list = true, id, now, s.list[:0]
	p.outstanding++
	for j := range n {
		if j > 0 {
			b = append(b, ',')
		}
		i := p.next()
		at := p.fleet.move(i, ms)
		s.list = append(s.list, sent{driver: i, place: at})
		b = append(p.fleet.appendPosition(append(b, '{'), i, at), '}')
		if p.onSent != nil {
			p.onSent(i, at, now)
		}
	}
	p.mu.Unlock()
	b = append(b, `]}`...)
	p.frame = b
	return p.socket.write(finish(p.frame, opText))
}

// room tells whether the window has room for one more position.
func (p *publisher) room() bool { return p.waiting() < len(p.slots) }

// stream sends one position with its seq. The window must have room.
func (p *publisher) stream() error {
	now := nanos()
	i := p.next()
	at := p.fleet.move(i, time.Now().UnixMilli())
	p.mu.Lock()
	p.seq++
	seq := p.seq
	s := &p.slots[seq%int64(len(p.slots))]
	s.busy, s.sent, s.list = true, now, append(s.list[:0], sent{driver: i, place: at})
	p.outstanding++
	p.mu.Unlock()
	b := append(begin(p.frame), `{"type":"position","seq":`...)
	b = strconv.AppendInt(b, seq, 10)
	b = append(p.fleet.appendPosition(append(b, ','), i, at), '}')
	p.frame = b
	return p.socket.write(finish(b, opText))
}

// read takes the server's answers until the socket is closed, or answered returns an error.
// It is called for each slot that an ok or error freed; nil where nobody waits for one.
func (p *publisher) read(answered func(slot int) error) error {
	var r reply
	for {
		b, err := p.socket.read()
		if err != nil {
			return err
		}
		now := nanos()
		if err := r.parse(b); err != nil {
			return fmt.Errorf("%w: %.100s", err, b)
		}
		freed, n, sent := p.take(&r)
		if freed < 0 {
			continue
		}
		p.run.meter.done(p.shard, sent, now, n)
		if answered != nil {
			if err := answered(freed); err != nil {
				return err
			}
		}
	}
}

// waiting counts the frames that are not answered.
func (p *publisher) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outstanding
}

// take settles what r answers: the slot that it frees, -1 without one, the positions in it
// and when they were sent.
func (p *publisher) take(r *reply) (freed, positions int, at int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.kind {
	case replyOK, replyError:
		if r.kind == replyError && r.seq >= 0 {
			p.refusedLocked(r)
			return -1, 0, 0
		}
		k := max(r.id, 0) % len(p.slots)
		s := &p.slots[k]
		if r.id < 0 || !s.busy || s.id != r.id {
			p.tally.stray++
			if r.kind == replyError {
				p.tally.refuse(r.code, 0)
			}
			return -1, 0, 0
		}
		if r.kind == replyError {
			p.tally.refuse(r.code, len(s.list))
			for j := range s.list {
				s.list[j].refused = true
			}
		}
		for _, x := range r.rejected {
			p.tally.refuse(x.Code, 1)
			if x.Index >= 0 && x.Index < len(s.list) {
				s.list[x.Index].refused = true
			}
		}
		if r.kind == replyOK && r.accepted+r.superseded+len(r.rejected) != len(s.list) {
			p.tally.stray++ // an ok that does not add up is an answer to something else
		}
		p.tally.accepted += int64(r.accepted)
		p.tally.superseded += int64(r.superseded)
		p.settleLocked(s)
		return k, len(s.list), s.sent
	case replyAck:
		if r.seq > p.seq || r.seq < p.acked {
			p.tally.stray++
			return -1, 0, 0
		}
		now := nanos()
		for ; p.acked < r.seq; p.acked++ {
			s := &p.slots[(p.acked+1)%int64(len(p.slots))]
			if !s.list[0].refused {
				p.tally.accepted++
			}
			p.settleLocked(s)
			p.run.meter.done(p.shard, s.sent, now, 1)
		}
	}
	return -1, 0, 0
}

// refusedLocked marks a streamed position; its ack is still to come.
func (p *publisher) refusedLocked(r *reply) {
	if r.seq <= p.acked || r.seq > p.seq {
		p.tally.stray++
		return
	}
	p.slots[r.seq%int64(len(p.slots))].list[0].refused = true
	p.tally.refuse(r.code, 1)
}

func (p *publisher) settleLocked(s *slot) {
	for k := range s.list {
		if x := &s.list[k]; !x.refused && x.at > p.fleet.acked[x.driver].at {
			p.fleet.acked[x.driver] = x.place
		}
	}
	s.busy = false
	p.outstanding--
}

// drain stops the load, waits until all that was sent is answered, and counts what never was.
func (r *run) drain(all []*publisher) {
	r.stop()
	unanswered := func() (n int64) {
		for _, p := range all {
			p.mu.Lock()
			for k := range p.slots {
				if p.slots[k].busy {
					n += int64(len(p.slots[k].list))
				}
			}
			p.mu.Unlock()
		}
		return n
	}
	r.eventually(drainWait, func() bool { return unanswered() == 0 })
	var t tally
	for _, p := range all {
		p.mu.Lock()
		t.add(&p.tally)
		p.mu.Unlock()
	}
	lost := unanswered()
	r.result.Positions = &PositionCounts{Accepted: t.accepted, Superseded: t.superseded, Refused: t.refused, Codes: maps.Clone(t.codes)}
	c := r.result.check("every position is answered, and once", t.accepted+t.superseded+t.refused+lost)
	c.fail(lost, "%d were not answered within %v", lost, drainWait)
	c.fail(t.stray, "%d answers were to nothing that was asked, or did not add up", t.stray)
}

// load reports every driver of the fleet once, in frames of perLoad, and waits until all of
// it is stored.
func (r *run) load(f *fleet) error {
	r.say("loading %d drivers", len(f.cars))
	all, err := r.openPublishers(f, min(8, len(f.cars)), 1, dray.MaxPositions)
	if err != nil {
		return err
	}
	const perLoad = 500
	var wg sync.WaitGroup
	for _, p := range all {
		left := (len(f.cars) - p.first + p.stride - 1) / p.stride
		done := make(chan struct{}, 1)
		send := func(int) error {
			n := min(left, perLoad)
			if left -= n; n == 0 {
				done <- struct{}{}
				return nil
			}
			return p.batch(0, n)
		}
		r.goRun(func() error {
			if err := send(0); err != nil {
				return err
			}
			return p.read(send)
		})
		wg.Go(func() {
			select {
			case <-done:
			case <-r.ctx.Done():
			}
		})
	}
	wg.Wait()
	if err := context.Cause(r.ctx); err != nil {
		return err
	}
	var t tally
	for _, p := range all {
		p.mu.Lock()
		t.add(&p.tally)
		p.mu.Unlock()
	}
	if t.accepted != int64(len(f.cars)) {
		return fmt.Errorf("the server took %d of %d drivers%s", t.accepted, len(f.cars), list(t.codes))
	}
	return nil
}
