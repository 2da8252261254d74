package location

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"dray"
)

// How positions become script calls. A partition gathers what arrives while a call is in
// flight (natural batching): under load nothing waits for a timer, and a call carries
// hundreds. When little arrives the first position waits up to linger for company: a call
// costs Redis about 0.2 ms of CPU on a virtual machine whatever is in it, so fewer and larger
// calls are cheaper (docs/performance.md).
const (
	linger    = 5 * time.Millisecond
	fullBatch = 16  // positions that need not wait: of what comes one by one, those of 3 ms at 5 000 a second
	maxBatch  = 512 // positions in one call: Lua's unpack bears 2 600, and others must get a turn
	inFlight  = 2   // calls of one partition at once: one is worked on while the other travels
)

// A report is one position on its way into Redis.
type report struct {
	driver   string
	at       int64 // ms
	bucket   Bucket
	text     string // its geohash, then the record from its timestamp on
	record   int    // where that starts in text
	end      int    // where text itself ends, in what it is cut from
	receiver Receiver
	token    uint64
	older    *report // superseded by this one before it was sent; settles with it
}

// A batch is what one partition has gathered for its next call.
type batch struct {
	reports  []report
	byDriver map[string]int // index into reports: only the newest position of a driver matters
	first    time.Time      // when it was begun
}

type partition struct {
	store *Store
	dir   string // key of the directory

	mu       sync.Mutex // guards the fields below
	gathered *batch
	full     []*batch    // of maxBatch, to be sent before gathered
	calls    int         // in flight
	timer    *time.Timer // fires when gathered has lingered; nil while none is armed
	spare    []*batch
	settled  *sync.Cond     // broadcast when a call or its crossings have ended
	begun    uint64         // calls so far; they are numbered from 1 in the order of what they carry
	open     map[uint64]int // number of a call -> what has not ended of it: itself, its crossings
}

func newPartition(s *Store, i int) *partition {
	p := &partition{store: s, dir: s.keys.dir(i), gathered: newBatch(), open: make(map[uint64]int)}
	p.settled = sync.NewCond(&p.mu)
	return p
}

func newBatch() *batch { return &batch{byDriver: make(map[string]int, maxBatch)} }

// encode fills r from pos, which is valid, appending its text to buf.
func (s *Store) encode(r *report, pos *dray.Position, now int64, buf []byte) []byte {
	r.driver, r.bucket = pos.Driver, s.buckets.at(pos.Point())
	if r.at = now; !pos.Timestamp.IsZero() {
		r.at = pos.Timestamp.UnixMilli()
	}
	start := len(buf)
	buf = strconv.AppendUint(buf, geohash(pos.Point()), 10)
	r.record = len(buf) - start
	buf = strconv.AppendInt(buf, r.at, 10)
	return appendRest(buf, pos)
}

// add takes reports of this partition and sees that they are sent.
func (p *partition) add(reports []report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range reports {
		r := &reports[i]
		b := p.gathered
		at, twice := b.byDriver[r.driver]
		if !twice {
			if len(b.reports) == 0 {
				b.first = time.Now()
			}
			b.byDriver[r.driver] = len(b.reports)
			if b.reports = append(b.reports, *r); len(b.reports) == maxBatch {
				p.full = append(p.full, b)
				p.gathered = p.emptyLocked()
			}
			continue
		}
		held, loser := &b.reports[at], new(report)
		if r.at > held.at {
			*loser, *held = *held, *r
			held.older = loser
		} else {
			*loser = *r
			loser.older, held.older = held.older, loser
		}
	}
	p.sendLocked()
}

func (p *partition) emptyLocked() *batch {
	if n := len(p.spare); n > 0 {
		b := p.spare[n-1]
		p.spare = p.spare[:n-1]
		return b
	}
	return newBatch()
}

// sendLocked begins calls for what is gathered, or arms the timer that will.
func (p *partition) sendLocked() {
	for p.calls < inFlight {
		b := p.gathered
		switch n := len(b.reports); {
		case len(p.full) > 0:
			b = p.full[0]
			p.full = slices.Delete(p.full, 0, 1)
		case n == 0:
			return
		case n < fullBatch && p.calls > 0:
			return // the call in flight ends sooner than anything would be gained
		default:
			if wait := linger - time.Since(b.first); n < fullBatch && wait > 0 && !p.store.closing.Load() {
				p.armLocked(wait)
				return
			}
			p.gathered = p.emptyLocked()
		}
		p.calls++
		p.begun++
		p.open[p.begun] = 1
		p.store.running.Add(1)
		go p.send(b, p.begun)
	}
}

func (p *partition) armLocked(wait time.Duration) {
	if p.timer != nil {
		return
	}
	p.store.running.Add(1)
	p.timer = time.AfterFunc(wait, func() {
		defer p.store.running.Done()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.timer = nil
		p.sendLocked()
	})
}

// send makes the call for b, tells the receivers and begins the crossings.
func (p *partition) send(b *batch, number uint64) {
	s := p.store
	defer s.running.Done()
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	outcomes, err := p.call(ctx, b.reports)
	s.metrics.flush.Observe(time.Since(began).Seconds())
	s.metrics.batch.Observe(float64(len(b.reports)))
	if err != nil {
		s.fail(b.reports, err)
	} else {
		if entered := s.settle(b.reports, outcomes); len(entered) > 0 {
			p.mu.Lock()
			p.open[number]++
			p.mu.Unlock()
			s.running.Go(func() {
				picked := s.enter(entered)
				p.mu.Lock()
				p.endedLocked(number)
				p.mu.Unlock()
				s.forgetGone(picked) // nobody waits for it but Close
			})
		}
		if s.cfg.TrailLength > 0 {
			s.keepTrails(b.reports)
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls--
	p.endedLocked(number)
	clear(b.byDriver)
	clear(b.reports)
	b.reports = b.reports[:0]
	p.spare = append(p.spare, b)
	p.sendLocked()
}

// endedLocked tells that a call, or its crossings, have ended.
func (p *partition) endedLocked(number uint64) {
	if p.open[number]--; p.open[number] == 0 {
		delete(p.open, number)
		p.settled.Broadcast()
	}
}

// barrier waits until everything that was added before has been sent and has ended.
func (p *partition) barrier(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.settled.Broadcast()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.begun + uint64(len(p.full)) // number of the call that carries what was added last
	if len(p.gathered.reports) > 0 {
		last++
	}
	for p.begun < last || p.openLocked(last) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.settled.Wait()
	}
	return nil
}

// openLocked tells whether a call numbered up to last has not ended.
func (p *partition) openLocked(last uint64) bool {
	for number := range p.open {
		if number <= last {
			return true
		}
	}
	return false
}

// callTimeout is how long a call may take until its positions are refused as unavailable.
const callTimeout = 2 * time.Second

// call runs report.lua. Its arguments are pointers into one slice of strings, for a string
// in an interface would be an allocation each.
func (p *partition) call(ctx context.Context, reports []report) (string, error) {
	type group struct {
		bucket Bucket
		name   string
		count  string
		rows   []int
	}
	var groups []*group
	byBucket := make(map[Bucket]*group, 8)
	for i := range reports {
		g := byBucket[reports[i].bucket]
		if g == nil {
			g = &group{bucket: reports[i].bucket, name: reports[i].bucket.String()}
			byBucket[reports[i].bucket] = g
			groups = append(groups, g)
		}
		g.rows = append(g.rows, i)
	}
	s := p.store
	texts := make([]string, 0, 3*len(reports))
	keys := make([]string, 1, 1+2*len(groups))
	args := make([]any, 0, 4+2*len(groups)+3*len(reports))
	keys[0] = p.dir
	base := p.dir[:len(p.dir)-len("dir")]
	args = append(args, &base, &s.ttlText, &s.publish, &s.alone)
	push := func(t string) {
		texts = append(texts, t) // within its capacity: pointers into it stay
		args = append(args, &texts[len(texts)-1])
	}
	for _, g := range groups {
		g.count = strconv.Itoa(len(g.rows))
		keys = append(keys, s.keys.records(g.bucket), s.keys.geo(g.bucket))
		args = append(args, &g.name, &g.count)
		for _, i := range g.rows {
			r := &reports[i]
			push(r.driver)
			push(r.text[:r.record])
			push(r.text[r.record:])
		}
	}
	answer, err := s.cfg.Redis.Run(ctx, s.scripts.report, keys, args...).Text()
	if err != nil {
		return "", err
	}
	if len(answer) != len(reports) {
		return "", dray.Errorf(dray.CodeInternal, "report.lua answered %d outcomes for %d positions", len(answer), len(reports))
	}
	// back from the order of the buckets to that of the reports
	outcomes := make([]byte, len(reports))
	k := 0
	for _, g := range groups {
		for _, i := range g.rows {
			outcomes[i] = answer[k]
			k++
		}
	}
	return unsafe.String(unsafe.SliceData(outcomes), len(outcomes)), nil
}
