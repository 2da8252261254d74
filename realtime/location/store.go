// Package location takes in where drivers are, keeps it in Redis, and answers where one is.
//
// A position travels: Submit -> validate -> encode -> batch of its partition -> report.lua ->
// feed. Package watch reads the feeds.
package location

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/semaphore"

	"dray"
	"dray/redisconn"
)

// Config configures a Store. Redis is required.
type Config struct {
	Redis *redisconn.Client

	// TTL is how long a position keeps its driver live after it was received. Zero means
	// dray.DefaultTTL. Every node must be given the same.
	TTL time.Duration

	// TrailLength and TrailAge bound the recent positions kept of each driver. Trails are
	// off when TrailLength is 0; a zero TrailAge then means an hour.
	TrailLength int
	TrailAge    time.Duration

	// MaxPending bounds the positions taken but not yet stored on this node. At the bound
	// Submit waits. Zero means 65 536; at least dray.MaxPositions.
	MaxPending int

	Metrics prometheus.Registerer // nil: not published
	Logger  *slog.Logger          // nil: slog.Default()
	Now     func() time.Time      // nil: time.Now
}

func (c *Config) maxPending() int64 {
	if c.MaxPending == 0 {
		return 65536
	}
	return int64(max(c.MaxPending, dray.MaxPositions))
}

func (c *Config) trailAge() time.Duration {
	if c.TrailAge == 0 {
		return time.Hour
	}
	return c.TrailAge
}

// An Outcome is what became of a position.
type Outcome uint8

const (
	Stored     Outcome = iota + 1 // Redis has it (or, older than the TTL, only the trail has)
	Superseded                    // Redis has a newer or equal one of this driver
	Refused                       // it is not valid, or Redis did not take it: see the error
)

// A Receiver is told what became of each position it submitted, once for each token, from
// any goroutine. It must not block.
type Receiver interface {
	Reported(token uint64, o Outcome, err error)
}

// ErrClosed is Submit's answer after Close. It is dray.ErrUnavailable to a client.
var ErrClosed = dray.Errorf(dray.CodeUnavailable, "this node is stopping")

var errForeign = dray.Errorf(dray.CodeUnavailable, "a key of this server holds somebody else's value")

// A Store takes positions and answers for single drivers. Safe for concurrent use.
type Store struct {
	cfg     Config
	keys    keys
	buckets *buckets
	scripts struct{ report, claim, leave, settle, forget, trail *redisconn.Script }
	metrics *metrics
	pending *semaphore.Weighted // positions taken and not yet told of

	partitions              []*partition
	ttlText, publish, alone string // arguments of report.lua

	submits sync.RWMutex    // read-held by each Submit that found closing false
	closing atomic.Bool     // set with submits held
	running sync.WaitGroup  // calls, crossings and timers; once closing, only those begin another
	ctx     context.Context // of them all; ends when Close gives up or is done
	stop    context.CancelFunc
	tending sync.WaitGroup // the directory's keeper
	texts   sync.Pool      // *scratch
}

// scratch is what Submit works in.
type scratch struct {
	buf     []byte
	reports []report
}

//go:embed report.lua
var reportLua string

//go:embed claim.lua
var claimLua string

//go:embed leave.lua
var leaveLua string

//go:embed settle.lua
var settleLua string

//go:embed forget.lua
var forgetLua string

//go:embed trail.lua
var trailLua string

// dirExpiry is how long a directory outlives the last node that kept it, in Cluster.
const dirExpiry = 24 * time.Hour

// New makes a Store. Close it before its Redis client.
func New(cfg Config) *Store {
	if cfg.TTL == 0 {
		cfg.TTL = dray.DefaultTTL
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Store{
		cfg:     cfg,
		buckets: new(buckets),
		metrics: newMetrics(cfg.Metrics),
		pending: semaphore.NewWeighted(cfg.maxPending()),
		ttlText: strconv.FormatInt(cfg.TTL.Milliseconds(), 10),
		publish: cfg.Redis.PublishCommand(),
		alone:   "0",
	}
	s.texts.New = func() any { return new(scratch) }
	s.scripts.report = redisconn.NewScript("report.lua", reportLua)
	s.scripts.claim = redisconn.NewScript("claim.lua", claimLua)
	s.scripts.leave = redisconn.NewScript("leave.lua", leaveLua)
	s.scripts.settle = redisconn.NewScript("settle.lua", settleLua)
	s.scripts.forget = redisconn.NewScript("forget.lua", forgetLua)
	s.scripts.trail = redisconn.NewScript("trail.lua", trailLua)
	s.keys.redis = cfg.Redis
	for i := range cfg.Redis.Partitions() {
		s.keys.bases = append(s.keys.bases, cfg.Redis.Prefix()+"{"+cfg.Redis.Tag(i)+"}:")
	}
	for i := range s.keys.bases {
		s.partitions = append(s.partitions, newPartition(s, i))
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if len(s.partitions) == 1 {
		s.alone = "1"
	} else {
		s.tending.Go(func() { s.tendDirectory(s.ctx) })
	}
	return s
}

// TTL is how long a position keeps its driver live.
func (s *Store) TTL() time.Duration { return s.cfg.TTL }

// Submit takes positions and returns before they are stored; r then hears of each by the
// token first+i. It validates them: an invalid one is Refused and the others are taken. A
// zero Timestamp means now. It waits while Config.MaxPending is reached, and fails with
// ctx's error, having taken none of them, if ctx ends first. positions may be reused by
// the caller after it returned; attribute maps may not be changed.
func (s *Store) Submit(ctx context.Context, positions []dray.Position, r Receiver, first uint64) error {
	if len(positions) > dray.MaxPositions {
		return dray.Errorf(dray.CodeTooLarge, "at most %d positions at once", dray.MaxPositions)
	}
	if err := s.pending.Acquire(ctx, int64(len(positions))); err != nil {
		return err
	}
	s.submits.RLock()
	defer s.submits.RUnlock()
	if s.closing.Load() {
		s.pending.Release(int64(len(positions)))
		return ErrClosed
	}
	s.metrics.taken.Add(float64(len(positions)))
	work := s.texts.Get().(*scratch)
	now := s.cfg.Now()
	buf, reports := work.buf[:0], work.reports[:0]
	ends := 0 // bytes of buf, for the texts are cut from one string
	for i := range positions {
		if err := positions[i].Validate(now); err != nil {
			s.settled(r, first+uint64(i), Refused, err)
			continue
		}
		reports = append(reports, report{receiver: r, token: first + uint64(i)})
		buf = s.encode(&reports[len(reports)-1], &positions[i], now.UnixMilli(), buf)
		reports[len(reports)-1].end = len(buf)
	}
	text := string(buf)
	for i := range reports {
		rep := &reports[i]
		rep.text, ends = text[ends:rep.end], rep.end
	}
	s.distribute(reports)
	clear(reports)
	work.buf, work.reports = buf, reports
	s.texts.Put(work)
	return nil
}

// distribute hands reports to their partitions, runs of one partition at once.
func (s *Store) distribute(reports []report) {
	if len(s.partitions) == 1 {
		if len(reports) > 0 {
			s.partitions[0].add(reports)
		}
		return
	}
	for i := 0; i < len(reports); {
		part := s.keys.ofBucket(reports[i].bucket)
		j := i + 1
		for j < len(reports) && s.keys.ofBucket(reports[j].bucket) == part {
			j++
		}
		s.partitions[part].add(reports[i:j])
		i = j
	}
}

// settled tells one receiver.
func (s *Store) settled(r Receiver, token uint64, o Outcome, err error) {
	s.pending.Release(1)
	s.metrics.outcomes[o].Inc()
	r.Reported(token, o, err)
}

// settleReport tells the receivers of a report and of those it superseded.
func (s *Store) settleReport(r *report, o Outcome, err error) {
	s.settled(r.receiver, r.token, o, err)
	if o == Stored {
		o = Superseded
	}
	for older := r.older; older != nil; older = older.older {
		s.settled(older.receiver, older.token, o, err)
	}
}

func (s *Store) fail(reports []report, err error) {
	s.cfg.Logger.Warn("positions not stored", "positions", len(reports), "error", err)
	for i := range reports {
		s.settleReport(&reports[i], Refused, err)
	}
}

// settle acts on the outcomes of report.lua, and returns the reports that entered a bucket.
func (s *Store) settle(reports []report, outcomes string) (entered []report) {
	for i := range reports {
		switch outcomes[i] {
		case 'e':
			entered = append(entered, reports[i])
		case 'o':
			s.settleReport(&reports[i], Superseded, nil)
		case 'w':
			s.BadRecord(reports[i].bucket, reports[i].driver)
			s.settleReport(&reports[i], Refused, errForeign)
		default:
			s.settleReport(&reports[i], Stored, nil)
		}
	}
	return entered
}

// enter makes the crossings of reports that entered a bucket, and tells the receivers. It
// returns what forgetGone is to check.
func (s *Store) enter(entered []report) (picked []string) {
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	crossings := make([]crossing, len(entered))
	for i := range entered {
		crossings[i] = crossing{driver: entered[i].driver, bucket: entered[i].bucket, at: entered[i].at}
	}
	s.metrics.crossings.Add(float64(len(crossings)))
	return s.cross(ctx, crossings, func(i int, o Outcome, err error) { s.settleReport(&entered[i], o, err) })
}

// A Result is the outcome of one position of Report.
type Result struct {
	Outcome Outcome
	Err     error // why it was Refused
}

// waiter collects the outcomes of one Report.
type waiter struct {
	results []Result
	left    atomic.Int64
	done    chan struct{}
}

func (w *waiter) Reported(token uint64, o Outcome, err error) {
	w.results[token] = Result{o, err}
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
}

// Report is Submit that waits until all outcomes are known. When ctx ends first, the
// positions may still be stored.
func (s *Store) Report(ctx context.Context, positions []dray.Position) ([]Result, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	w := &waiter{results: make([]Result, len(positions)), done: make(chan struct{})}
	w.left.Store(int64(len(positions)))
	if err := s.Submit(ctx, positions, w, 0); err != nil {
		return nil, err
	}
	select {
	case <-w.done:
		return w.results, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func badDriver() error {
	return dray.FieldError(dray.CodeBadRequest, "driver", "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxID)
}

// barrier waits until all that was submitted before has ended: calls, crossings and trails.
func (s *Store) barrier(ctx context.Context) error {
	for _, p := range s.partitions {
		if err := p.barrier(ctx); err != nil {
			return redisconn.Wrap(err)
		}
	}
	return nil
}

// maxHops bounds how often a driver is followed that moves while it is asked for.
const maxHops = 4

// Offline takes driver out of every set at once. Its last timestamp is kept: only a newer
// position brings it back. A driver that is not live is no error. Positions submitted
// before it count as before it.
func (s *Store) Offline(ctx context.Context, driver string) error {
	if !dray.ValidID(driver) {
		return badDriver()
	}
	if err := s.barrier(ctx); err != nil {
		return err
	}
	for hop, last := 0, Bucket(0); hop < maxHops; hop++ {
		e, err := s.entryOf(ctx, driver)
		if err != nil || e.bucket() == 0 || e.bucket() == last {
			return err
		}
		for _, v := range slices.Backward(e.visits) {
			if _, err := s.leave(ctx, driver, v.bucket, 0, `"reason":"offline"`); err != nil {
				return err
			}
		}
		last = e.bucket()
	}
	return nil
}

// entryOf asks the directory; the zero entry where it knows nothing.
func (s *Store) entryOf(ctx context.Context, driver string) (dirEntry, error) {
	held, err := s.cfg.Redis.Redis().HGet(ctx, s.keys.dir(s.keys.ofDriver(driver)), driver).Result()
	if errors.Is(err, redis.Nil) {
		return dirEntry{}, nil
	}
	return parseDirEntry(held), err
}

// Last is the newest position of a live driver; false when it is not live. Two round trips.
func (s *Store) Last(ctx context.Context, driver string) (dray.Driver, bool, error) {
	if !dray.ValidID(driver) {
		return dray.Driver{}, false, badDriver()
	}
	entry, err := s.entryOf(ctx, driver)
	b := entry.bucket()
	for hop := 0; hop < maxHops && b != 0 && err == nil; hop++ {
		var now *redis.TimeCmd
		var held *redis.StringCmd
		_, err = s.cfg.Redis.Redis().Pipelined(ctx, func(p redis.Pipeliner) error {
			now, held = p.Time(ctx), p.HGet(ctx, s.keys.records(b), driver)
			return nil
		})
		if errors.Is(err, redis.Nil) {
			break
		}
		if err != nil {
			return dray.Driver{}, false, err
		}
		record, _ := held.Bytes()
		e, ok := ParseEntry(record)
		switch {
		case !ok:
			s.BadRecord(b, driver)
			return dray.Driver{}, false, nil
		case e.Left:
			b = e.To
		case now.Val().UnixMilli()-e.ReceivedAt >= s.cfg.TTL.Milliseconds():
			return dray.Driver{}, false, nil
		default:
			d, err := parseDriver(e.JSON)
			return d, err == nil, err
		}
	}
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	return dray.Driver{}, false, err
}

// BadRecord counts a record that does not parse and names it in the log, at most once a
// minute.
func (s *Store) BadRecord(b Bucket, driver string) {
	s.metrics.badRecords.Inc()
	now := s.cfg.Now().Unix()
	if last := s.metrics.badLogged.Load(); now-last >= 60 && s.metrics.badLogged.CompareAndSwap(last, now) {
		s.cfg.Logger.Error("record does not parse", "bucket", b.String(), "driver", driver)
	}
}

// tendDirectory keeps the directories of Cluster from expiring while this node lives.
func (s *Store) tendDirectory(ctx context.Context) {
	tick := time.NewTicker(dirExpiry / 24)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, err := s.cfg.Redis.Redis().Pipelined(ctx, func(p redis.Pipeliner) error {
				for i := range s.partitions {
					p.PExpire(ctx, s.keys.dir(i), dirExpiry)
				}
				return nil
			})
			if err != nil {
				s.cfg.Logger.Warn("directory not renewed", "error", err)
			}
		}
	}
}

// Close stores what was taken and stops; Submit fails from now on. When ctx ends first,
// what is left is told as unavailable within callTimeout.
func (s *Store) Close(ctx context.Context) error {
	s.submits.Lock()
	s.closing.Store(true)
	s.submits.Unlock()
	defer s.stop() // where it gave up, what is still to be sent fails as soon as the calls in flight end
	for _, p := range s.partitions {
		p.mu.Lock()
		p.sendLocked()
		p.mu.Unlock()
	}
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		s.stop()
		s.tending.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
