package loadtest

import (
	"fmt"
	"math"
	"sync"

	"dray"
)

// A subscriber is one connection with one subscription. It keeps its set, and holds every
// frame to the contract.
type subscriber struct {
	run    *run
	fleet  *fleet
	log    *logbook
	socket *socket
	shard  int
	center dray.Point
	radius float64
	live   chan struct{} // closed at the first snapshot

	mu         sync.Mutex // guards the fields below
	began      bool       // a snapshot came
	version    int64
	held       map[int]holding // driver -> what was said of it last
	frames     int64
	bytes      int64
	entered    int64 // of positions sent in the window
	left       int64
	strangers  int64 // entries of drivers that are not of this run
	broken     int64 // promises, of which violations tells the first
	violations []string
}

// A holding is what a subscriber knows of a driver, also of one that left.
type holding struct {
	place
	in    bool
	frame int64 // the number of the frame that said so
}

// read applies frames until the socket is closed.
func (s *subscriber) read() error {
	var x change
	for {
		b, err := s.socket.read()
		if err != nil {
			return err
		}
		now := nanos()
		ours, err := x.parse(b)
		if err != nil {
			return fmt.Errorf("%w: %.100s", err, b)
		}
		if ours {
			s.apply(&x, len(b), now)
			continue
		}
		var r reply
		if err := r.strict(b); err != nil {
			return err
		}
		if r.kind == replyError {
			return fmt.Errorf("the server refused a subscription: %s: %s", r.code, r.message)
		}
	}
}

// violatedLocked notes a broken promise.
func (s *subscriber) violatedLocked(x *change, format string, args ...any) {
	if s.broken++; len(s.violations) < maxExamples {
		s.violations = append(s.violations, fmt.Sprintf("version %d: ", x.version)+fmt.Sprintf(format, args...))
	}
}

// apply brings a frame of n bytes that came now into the set.
func (s *subscriber) apply(x *change, n int, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames++
	s.bytes += int64(n)
	if s.began && x.version <= s.version {
		s.violatedLocked(x, "came after version %d", s.version)
	}
	s.version = x.version
	switch {
	case x.snapshot:
		if !s.began {
			s.began = true
			close(s.live)
		}
		for driver, h := range s.held {
			h.in = false
			s.held[driver] = h
		}
	case !s.began:
		s.violatedLocked(x, "a delta before the snapshot")
	case len(x.entered)+len(x.moved)+len(x.left) == 0:
		s.violatedLocked(x, "an empty delta")
	}
	for i := range x.left {
		s.leaveLocked(x, &x.left[i])
	}
	for i := range x.entered {
		s.enterLocked(x, &x.entered[i], false, now)
	}
	for i := range x.moved {
		s.enterLocked(x, &x.moved[i], true, now)
	}
}

func (s *subscriber) leaveLocked(x *change, e *entry) {
	i := s.fleet.index(e.driver)
	if i < 0 {
		s.strangers++
		return
	}
	s.left++
	h := s.held[i]
	if !h.in {
		s.violatedLocked(x, "%s left, which was not in the set", e.driver)
	}
	if h.frame == s.frames {
		s.violatedLocked(x, "%s stands in it twice", e.driver)
	}
	h.in, h.frame = false, s.frames
	s.held[i] = h
}

// enterLocked takes one entry of entered, moved or a snapshot's drivers.
func (s *subscriber) enterLocked(x *change, e *entry, moved bool, now int64) {
	i := s.fleet.index(e.driver)
	if i < 0 {
		s.strangers++
		return
	}
	h, known := s.held[i]
	switch {
	case known && h.frame == s.frames:
		s.violatedLocked(x, "%s stands in it twice", e.driver)
	case moved && !h.in:
		s.violatedLocked(x, "%s moved, which was not in the set", e.driver)
	case !moved && h.in:
		s.violatedLocked(x, "%s entered, which was in the set", e.driver)
	}
	if e.at < h.at {
		s.violatedLocked(x, "%s is of %d, after one of %d", e.driver, e.at, h.at)
	}
	news := e.at > h.at
	s.held[i] = holding{e.place, true, s.frames}
	if x.snapshot || !news {
		return
	}
	u, ok := s.log.find(i, e.at)
	switch {
	case !ok:
		return // of the load before the run, or older than what is remembered
	case u.place != e.place:
		s.violatedLocked(x, "%s is %v, and %v was sent", e.driver, e.place, u.place)
	case s.run.meter.within(u.sent):
		s.run.meter.record(s.shard, now-u.sent, 1)
		if !moved {
			s.entered++
		}
	}
}

// edge is how near to the rim of a circle a driver may be in or out: how exactly two
// programs compute a distance.
const edge = 0.01 // metres

// wrong tells how the set differs from the newest acknowledged positions; "" when it does not.
func (s *subscriber) wrong(f *fleet) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, want := range f.acked {
		h := s.held[i]
		distance := math.Inf(1)
		if want.at != 0 && s.near(want) {
			distance = dray.Distance(s.center, want.point())
		}
		switch {
		case math.Abs(distance-s.radius) < edge && (!h.in || h.place == want):
		case distance <= s.radius && !h.in:
			return fmt.Sprintf("%s is not in the set, %.2f m from its middle", f.ids[i], distance)
		case distance <= s.radius && h.place != want:
			return fmt.Sprintf("%s is %v in the set, and was last acknowledged %v", f.ids[i], h.place, want)
		case distance > s.radius && h.in:
			return fmt.Sprintf("%s is in the set, and was last acknowledged %v, outside", f.ids[i], want)
		}
	}
	return ""
}

// near is a quick test that leaves out what is surely outside.
func (s *subscriber) near(p place) bool {
	return math.Abs(float64(p.lat)/1e6-s.center.Latitude)*110_000 <= s.radius*1.1+100
}
