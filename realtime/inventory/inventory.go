// Package inventory keeps stock that is never oversold: units on hand, holds on them that
// expire, and a ledger of every change, in Redis.
//
// A request travels: method of Store -> batch of its location -> apply.lua, which works out all
// requests of a batch one by one, each all or nothing, and writes counters, reservations and ledger
// in one atomic step. Redis's clock alone decides what has expired.
package inventory

import (
	"context"
	_ "embed"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"dray"
	"dray/redisconn"
)

// Config configures a Store. Redis is required.
type Config struct {
	Redis *redisconn.Client

	// Replicas is how many replicas must have confirmed a change before it is answered; a request
	// may ask for more. Zero waits for none: a failover may lose what was answered last.
	Replicas int
	// WaitTimeout bounds that wait; then the answer is dray.ErrDurabilityNotReached. Zero means 500 ms;
	// it is a second at most, and half of the client's read timeout.
	WaitTimeout time.Duration

	// LedgerLength and LedgerAge bound what the ledger of a location keeps, in entries and by
	// time; what is over goes a little at a time as new entries come. A zero LedgerLength means
	// 1 000 000, a negative one no bound; a zero LedgerAge sets none.
	LedgerLength int64
	LedgerAge    time.Duration

	// Retention is how long an answer is kept for its key, and a reservation after its end.
	// Zero means 24 hours, which is what the contract promises.
	Retention time.Duration

	// MaxPending bounds the requests of this node that wait for Redis; at the bound callers
	// wait. Zero means 65 536.
	MaxPending int

	// AllowEviction starts on a Redis that may evict stock when its memory is full.
	AllowEviction bool

	Metrics prometheus.Registerer // nil: not published
	Logger  *slog.Logger          // nil: slog.Default()
}

func (c Config) withDefaults() Config {
	if c.WaitTimeout == 0 {
		c.WaitTimeout = 500 * time.Millisecond
	}
	c.WaitTimeout = min(c.WaitTimeout, callTimeout/2)
	if c.LedgerLength == 0 {
		c.LedgerLength = 1_000_000
	}
	if c.Retention == 0 {
		c.Retention = 24 * time.Hour
	}
	if c.MaxPending == 0 {
		c.MaxPending = 65536
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Options of a request that changes something. The zero value asks for nothing special.
type Options struct {
	// Key makes the request idempotent: for Config.Retention the same key of the same By with the
	// same request gives the same answer, without doing it again; with another request,
	// dray.ErrIdempotencyMismatch. A refusal is not kept. "" is no key; else 1 to dray.MaxKey
	// printable ASCII letters.
	Key string
	// By is who asks, for the ledger and as the owner of Key: see dray.ValidID. May be "".
	By string
	// Replicas is how many replicas must confirm, where that is more than Config.Replicas.
	Replicas int
}

// A Store keeps the stock of all locations. Safe for concurrent use.
//
// Every method fails with dray.ErrUnavailable when Redis does not answer before ctx ends; a change
// may then have been made, and a retry with the same Key tells.
type Store struct {
	cfg     Config
	redis   *redisconn.Client
	keys    keys
	metrics *metrics
	scripts struct{ apply, ledger, due, pin *redisconn.Script }
	head    []string // arguments 3 on of apply.lua
	pending *semaphore.Weighted
	waits   *semaphore.Weighted // calls that wait for Config.Replicas
	longer  *semaphore.Weighted // and for more

	ctx     context.Context // of calls and the sweeper; ends when Close gives up
	stop    context.CancelFunc
	running sync.WaitGroup // calls
	workers sync.WaitGroup // goroutines that make them
	idle    atomic.Int32   // of these
	jobs    chan job       // takes a call while one is idle
	dones   sync.Pool      // channels on which callers have waited
	sweeper *sweeper
	warned  atomic.Int64 // Unix ns of the last unreadable record that was logged

	mu      sync.Mutex      // guards the fields below
	queues  map[lane]*queue // what is waiting or under way
	closing bool
}

//go:embed apply.lua
var applyLua string

//go:embed ledger.lua
var ledgerLua string

//go:embed due.lua
var dueLua string

//go:embed pin.lua
var pinLua string

// New makes a Store and starts the sweeper, which gives back what has expired where nobody asks.
// It fails when Redis may evict stock (see [Config.AllowEviction]) or does not answer. Close it
// before its Redis client.
func New(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := checkServer(ctx, cfg); err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, redis: cfg.Redis, keys: newKeys(cfg.Redis), metrics: newMetrics(cfg.Metrics),
		pending: semaphore.NewWeighted(int64(cfg.MaxPending)), waits: semaphore.NewWeighted(maxWaits), longer: semaphore.NewWeighted(maxLonger), queues: map[lane]*queue{},
		jobs: make(chan job),
	}
	s.scripts.apply = redisconn.NewScript("apply.lua", applyLua)
	s.scripts.ledger = redisconn.NewScript("ledger.lua", ledgerLua)
	s.scripts.due = redisconn.NewScript("due.lua", dueLua)
	s.scripts.pin = redisconn.NewScript("pin.lua", pinLua)
	s.head = []string{
		strconv.FormatInt(max(cfg.LedgerLength, 0), 10),
		strconv.FormatInt(cfg.LedgerAge.Milliseconds(), 10),
		strconv.FormatInt(cfg.Retention.Milliseconds(), 10),
		strconv.Itoa(dueBound),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.sweeper = startSweeper(s)
	return s, nil
}

// Close waits until what was taken is answered, or ctx ends, and ends the sweeper. Requests
// after it fail with dray.ErrUnavailable.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.sweeper.close()
	drained := make(chan struct{})
	go func() {
		s.running.Wait()
		close(drained)
	}()
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.stop()
	<-drained
	s.workers.Wait()
	return err
}

// check validates o.
func (o *Options) check() error {
	if err := dray.ValidateKey(o.Key); err != nil {
		return err
	}
	if o.By != "" && !dray.ValidID(o.By) {
		return dray.FieldError(dray.CodeBadRequest, "by", "must be an id")
	}
	if o.Replicas < 0 || o.Replicas > dray.MaxReplicas {
		return dray.FieldError(dray.CodeBadRequest, "replicas", "must be 0 to %d", dray.MaxReplicas)
	}
	return nil
}

// with is o with the replicas that the Store itself asks for.
func (o Options) with(replicas int) Options {
	o.Replicas = max(o.Replicas, replicas)
	return o
}
