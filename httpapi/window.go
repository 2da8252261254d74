package httpapi

// A window holds the positions of one connection that are on their way to Redis, in the
// order they came, so that one number can acknowledge all before it.
type window struct {
	slots   []slot // a ring; its length is a power of two
	head    uint64 // token of the oldest that is not settled, or tail
	tail    uint64 // token of the next
	covered int64  // every position up to this seq is settled; -1 when none is
}

// A slot is one position on its way.
type slot struct {
	seq     int64  // -1 when absent
	batch   *batch // the message it came in; nil for a single position
	index   int    // its place among the positions of the batch
	settled bool
}

// A batch is a message of many positions, until all of them are settled.
type batch struct {
	id         []byte // raw JSON; nil when no answer is due
	index      []int  // place among those submitted -> place in the message; nil when equal
	left       int    // positions not yet settled
	accepted   int
	superseded int
	rejected   []rejection
}

const leastSlots = 8 // what an idle connection keeps

func newWindow() window { return window{covered: -1} }

// pending counts what is in the window; the settled behind an unsettled count too.
func (w *window) pending() int { return int(w.tail - w.head) }

func (w *window) slot(token uint64) *slot { return &w.slots[token&uint64(len(w.slots)-1)] }

// add takes in one position and returns its token.
func (w *window) add(s slot) uint64 {
	if w.pending() == len(w.slots) {
		w.grow()
	}
	token := w.tail
	w.tail++
	*w.slot(token) = s
	return token
}

func (w *window) grow() {
	old := *w
	w.slots = make([]slot, max(leastSlots, 2*len(old.slots)))
	for t := w.head; t != w.tail; t++ {
		*w.slot(t) = *old.slot(t)
	}
}

// settle marks one position as settled, moves on past all that are, and tells whether
// more is covered now.
func (w *window) settle(token uint64) (s slot, more bool) {
	at := w.slot(token)
	at.settled = true
	s = *at
	for w.head != w.tail {
		oldest := w.slot(w.head)
		if !oldest.settled {
			return s, more
		}
		if oldest.seq >= 0 {
			w.covered, more = oldest.seq, true
		}
		*oldest = slot{}
		w.head++
	}
	return s, more
}

// rest gives back what a burst made large, if nothing is in the window.
func (w *window) rest() {
	if w.head == w.tail && len(w.slots) > leastSlots {
		w.slots = nil
	}
}
