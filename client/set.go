package client

import (
	"context"
	"maps"
	"slices"
	"time"

	"dray"
)

// Set is the set as it is now, in no order. While there is no connection it is the last
// that was known.
func (s *Subscription) Set() []dray.Driver {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.set))
}

// Len is the size of the set.
func (s *Subscription) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.set)
}

// Next waits for the set to change and tells how it did since the last Next. Latest wins:
// what comes between two calls is merged into one Event with at most one entry a driver, so
// a slow caller costs the size of the set, never a backlog.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok := s.take(); ok {
			return e, nil
		}
		select {
		case <-s.wake:
		case <-s.ended:
			return Event{}, s.Err()
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		}
	}
}

// take is the difference between what Next told and what is; false where there is none.
func (s *Subscription) take() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.event
	switch {
	case s.snapshot:
		e.Snapshot = true
		e.Entered, e.Stock = slices.Collect(maps.Values(s.set)), slices.Collect(maps.Values(s.rows))
	case len(s.dirty) > 0 && s.rows != nil:
		s.takeRows(&e)
	case len(s.dirty) > 0:
		for driver, m := range s.dirty {
			d, has := s.set[driver]
			switch {
			case has && m.had:
				e.Moved = append(e.Moved, d)
			case has:
				e.Entered = append(e.Entered, d)
			default:
				e.Left = append(e.Left, dray.Leave{Driver: driver, Reason: m.reason})
			}
		}
	default:
		return Event{}, false
	}
	e.StockEvents = slices.Collect(maps.Values(s.events))
	s.snapshot, s.event = false, Event{}
	clear(s.dirty)
	clear(s.events)
	return e, true
}

// apply brings a snapshot or delta into the set. Where the server breaks its promise, the
// set still ends up as the server says.
func (s *Subscription) apply(f *frame) {
	s.mu.Lock()
	var violations []error
	switch {
	case s.check == nil:
	case s.rows != nil:
		violations = s.check.stockFrame(s.id, f, s.rows)
	default:
		violations = s.check.frame(s.id, f, s.set)
	}
	s.event.Version, s.event.ServerTime = f.Version, time.UnixMilli(f.ServerTime)
	s.event.Frames++
	if s.rows != nil {
		s.applyStock(f)
	} else if f.Type == "snapshot" {
		s.snapshot = true
		clear(s.set)
		clear(s.dirty)
		for i := range f.Drivers.list {
			s.set[f.Drivers.list[i].Driver] = f.Drivers.list[i]
		}
	} else {
		for _, l := range f.Left {
			s.remove(l.Leave)
		}
		for i := range f.Entered.list {
			s.put(&f.Entered.list[i])
		}
		for i := range f.Moved.list {
			s.put(&f.Moved.list[i])
		}
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if tell := s.client.cfg.OnViolation; tell != nil {
		for _, v := range violations {
			tell(v)
		}
	}
}

func (s *Subscription) put(d *dray.Driver) {
	if !s.snapshot {
		if _, told := s.dirty[d.Driver]; !told {
			_, had := s.set[d.Driver]
			s.dirty[d.Driver] = mark{had: had}
		}
	}
	s.set[d.Driver] = *d
}

func (s *Subscription) remove(l dray.Leave) {
	if _, has := s.set[l.Driver]; !has {
		return
	}
	delete(s.set, l.Driver)
	if s.snapshot {
		return
	}
	if m, told := s.dirty[l.Driver]; told && !m.had {
		delete(s.dirty, l.Driver) // came and went unseen
		return
	}
	s.dirty[l.Driver] = mark{had: true, reason: l.Reason}
}
