// Package claim holds drivers for whoever asks first: no driver is held by two, and each
// comes free when it is given back or its time is over.
//
// A claim travels: Claim -> the nearest candidates of this node's copy -> take.lua, which alone
// decides -> feed. Package watch reads the feed, and hides those held from who asks by place.
package claim

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray"
	"dray/redisconn"
)

// Config configures a Store. Redis and Near are required.
type Config struct {
	Redis *redisconn.Client
	Near  Candidates

	Metrics prometheus.Registerer // nil: not published
}

// Candidates finds drivers that may be claimed.
type Candidates interface {
	// Candidates returns the live drivers inside circle that pass filter, nearest first: at most
	// free of those that nobody holds, and at most held of the others, as they are at one moment.
	// It may be behind by a moment, for take.lua decides.
	Candidates(ctx context.Context, circle dray.Circle, filter dray.Filter, free, held int) ([]Candidate, error)
}

// A Candidate is a driver that may be claimed.
type Candidate struct {
	Driver string
	JSON   []byte // its Driver object, with the distance
}

// A Store makes and ends claims. Safe for concurrent use.
type Store struct {
	cfg     Config
	base    string
	channel string
	publish string
	metrics *metrics
}

var (
	//go:embed take.lua
	takeLua string
	//go:embed give.lua
	giveLua string
	//go:embed held.lua
	heldLua string

	take = redisconn.NewScript("take.lua", takeLua)
	give = redisconn.NewScript("give.lua", giveLua)
	held = redisconn.NewScript("held.lua", heldLua)
)

const (
	keepAnswer = 24 * time.Hour                 // an answer for its key
	keepHash   = dray.MaxClaimTTL + time.Minute // the hash without a write: all in it has ended by then

	// spare is how many candidates more than count are tried at first: rivals want the same.
	spare = 8
	// believed times as many are tried, of those that this node believes to be held, before a claim gets
	// less than it asked for: it may not have heard yet that they are free.
	believed = 4
)

// New makes a Store. It has nothing to close.
func New(cfg Config) *Store {
	return &Store{cfg: cfg, base: base(cfg.Redis), channel: Channel(cfg.Redis),
		publish: cfg.Redis.PublishCommand(), metrics: newMetrics(cfg.Metrics)}
}

// Claim holds the nearest matching drivers that nobody holds, for r.TTL: r.Count of them, or
// fewer where there are fewer. caller is who asks; their keys are not those of another.
//
// It fails with dray.ErrNoneAvailable where there is none, which is not kept for r.Key;
// with dray.ErrIdempotencyMismatch where the key was used with another request; as
// ClaimRequest.Validate does; and with dray.ErrUnavailable when Redis does not answer before
// ctx ends: then the drivers may be held, and the same key tells, or they come free after r.TTL.
// One round trip, seldom a few more: where rivals took those asked for, or there are too few.
func (s *Store) Claim(ctx context.Context, caller string, r dray.ClaimRequest) (dray.Claim, error) {
	if err := r.Validate(); err != nil {
		return dray.Claim{}, err
	}
	r.Count = max(r.Count, 1)
	a := attempt{id: rand.Text(), request: &r, print: fingerprint(&r)}
	a.keys = []string{s.base + "claims", s.base + "claim:" + a.id}
	if r.Key != "" {
		a.keys = append(a.keys, s.base+"key:"+keyName(caller, r.Key))
	}
	limit := r.Count + r.Count/2 + spare
	for ; ; limit = min(4*limit, dray.MaxLimit) {
		free, err := s.cfg.Near.Candidates(ctx, r.Circle, r.Filter, limit, 0)
		if err != nil {
			return dray.Claim{}, err
		}
		if len(free) >= r.Count {
			if c, err := s.take(ctx, &a, free, false); !errors.Is(err, errShort) {
				return c, err
			}
		}
		if len(free) < limit || limit == dray.MaxLimit {
			break // there are no others
		}
	}
	all, err := s.cfg.Near.Candidates(ctx, r.Circle, r.Filter, limit, believed*(r.Count+spare))
	if err != nil {
		return dray.Claim{}, err
	}
	c, err := s.take(ctx, &a, all, true)
	if errors.Is(err, errShort) {
		s.metrics.refused.Inc()
		err = dray.ErrNoneAvailable
	}
	return c, err
}

// An attempt is what all calls for one request have in common.
type attempt struct {
	id      string
	request *dray.ClaimRequest
	print   string
	keys    []string
}

// errShort tells that fewer drivers are free than were asked for.
var errShort = errors.New("claim: too few are free")

// take runs take.lua. last tells that there are no other candidates.
func (s *Store) take(ctx context.Context, a *attempt, candidates []Candidate, last bool) (dray.Claim, error) {
	lastText := "0"
	if last {
		lastText = "1"
	}
	args := make([]any, 0, 9+2*len(candidates))
	args = append(args, a.id, a.request.TTL.Milliseconds(), a.request.Count, lastText, s.channel, s.publish,
		a.print, keepAnswer.Milliseconds(), keepHash.Milliseconds())
	for i := range candidates {
		args = append(args, candidates[i].Driver, candidates[i].JSON)
	}
	answer, err := s.cfg.Redis.Run(ctx, take, a.keys, args...).Slice()
	if err != nil {
		return dray.Claim{}, err
	}
	outcome, text := answer[0], ""
	if lost, ok := answer[1].(int64); ok && !last {
		s.metrics.lost.Add(float64(lost))
	}
	if cleared, ok := answer[2].(int64); ok {
		s.metrics.expired.Add(float64(cleared))
	}
	switch outcome {
	case "mismatch":
		return dray.Claim{}, dray.ErrIdempotencyMismatch
	case "short":
		return dray.Claim{}, errShort
	}
	if len(answer) > 3 {
		text, _ = answer[3].(string)
	}
	var c dray.Claim
	if err := c.UnmarshalJSON([]byte(text)); err != nil {
		return c, err
	}
	if c.ID == a.id {
		s.metrics.claims.Inc()
		s.metrics.taken.Add(float64(len(c.Drivers)))
	} else {
		s.metrics.replayed.Inc()
	}
	return c, nil
}

// Unclaim ends a claim. It fails with dray.ErrNotFound where there is none of that id or it
// has ended: so also when it is asked for again, after an answer was lost. One round trip.
func (s *Store) Unclaim(ctx context.Context, id string) error {
	if !dray.ValidServerID(id) {
		return dray.FieldError(dray.CodeBadRequest, "claim", "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxServerID)
	}
	freed, err := s.cfg.Redis.Run(ctx, give, []string{s.base + "claims", s.base + "claim:" + id}, id, s.channel, s.publish).Int()
	if err != nil {
		return err
	}
	if freed == 0 {
		return dray.Errorf(dray.CodeNotFound, "no claim of this id, or it has ended")
	}
	s.metrics.released.Add(float64(freed))
	return nil
}

// Held tells which of drivers, to dray.MaxLimit, somebody holds. One round trip.
func (s *Store) Held(ctx context.Context, drivers ...string) (map[string]time.Duration, error) {
	if len(drivers) == 0 {
		return nil, nil
	}
	_, left, err := Read(ctx, s.cfg.Redis, drivers...)
	return left, err
}

// Read asks Redis which of drivers, to dray.MaxLimit, are held, and for how long still; with
// no drivers, of all that are. number is that of the last message that it holds.
func Read(ctx context.Context, c *redisconn.Client, drivers ...string) (number int64, left map[string]time.Duration, err error) {
	args := make([]any, len(drivers))
	for i := range drivers {
		args[i] = drivers[i]
	}
	answer, err := c.Run(ctx, held, []string{base(c) + "claims"}, args...).StringSlice()
	if err != nil {
		return 0, nil, err
	}
	number, err = strconv.ParseInt(answer[0], 10, 64)
	left = make(map[string]time.Duration, len(answer)/2)
	for i := 1; i+1 < len(answer) && err == nil; i += 2 {
		var ms int64
		ms, err = strconv.ParseInt(answer[i+1], 10, 64)
		left[answer[i]] = time.Duration(ms) * time.Millisecond
	}
	return number, left, err
}
