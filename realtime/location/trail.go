package location

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn"
)

// trailBatch is how many positions one call of trail.lua adds: Redis does nothing else
// meanwhile, for some 10 ms.
const trailBatch = 500

// keepTrails adds every position of reports, superseded ones too, to its driver's trail. The
// positions are stored and told of by now: what fails is only counted and logged.
func (s *Store) keepTrails(reports []report) {
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	byPartition := make([][]*report, len(s.partitions))
	for i := range reports {
		part := s.keys.ofDriver(reports[i].driver)
		byPartition[part] = append(byPartition[part], s.toTrail(&reports[i])...)
	}
	var calls []redisconn.Call
	var sizes []int
	for _, all := range byPartition {
		for chunk := range slices.Chunk(all, trailBatch) {
			keys, args := make([]string, len(chunk)), make([]any, 2, 2+2*len(chunk))
			args[0], args[1] = s.cfg.TrailLength, s.cfg.trailAge().Milliseconds()
			for i, r := range chunk {
				keys[i] = s.keys.trail(r.driver)
				args = append(args, r.at, r.text[r.record+len(strconv.FormatInt(r.at, 10)):])
			}
			calls, sizes = append(calls, s.scripts.trail.Call(keys, args...)), append(sizes, len(chunk))
		}
	}
	for i, cmd := range s.cfg.Redis.RunAll(ctx, calls) {
		if err := cmd.Err(); err != nil {
			s.metrics.trailErrors.Add(float64(sizes[i]))
			s.cfg.Logger.Warn("positions not added to trails", "positions", sizes[i], "error", err)
		}
	}
}

// toTrail is r and what it superseded, as much as a trail may hold, the newest; r, which
// stands, comes last.
func (s *Store) toTrail(r *report) []*report {
	var all []*report
	for ; r != nil; r = r.older {
		all = append(all, r)
	}
	if len(all) > s.cfg.TrailLength {
		slices.SortStableFunc(all, func(a, b *report) int { return cmp.Compare(b.at, a.at) })
		all = all[:s.cfg.TrailLength]
	}
	slices.Reverse(all)
	return all
}

// Trail returns at most limit recent positions of driver taken in [from, to] (a zero time
// is no bound), oldest first; where there are more, the newest of them. limit is within
// [1, dray.MaxLimit]. Positions submitted before it are there, but for those that Redis did
// not take. It fails with dray.ErrNotFound where trails are off. One round trip.
func (s *Store) Trail(ctx context.Context, driver string, from, to time.Time, limit int) ([]dray.Driver, error) {
	switch {
	case s.cfg.TrailLength == 0:
		return nil, dray.Errorf(dray.CodeNotFound, "trails are off on this server")
	case !dray.ValidID(driver):
		return nil, badDriver()
	case limit < 1 || limit > dray.MaxLimit:
		return nil, dray.FieldError(dray.CodeBadRequest, "limit", "must be within 1 and %d", dray.MaxLimit)
	}
	if err := s.barrier(ctx); err != nil {
		return nil, err
	}
	oldest := s.cfg.Now().Add(-s.cfg.trailAge())
	if from.Before(oldest) {
		from = oldest
	}
	last := "+inf"
	if !to.IsZero() {
		last = strconv.FormatInt(to.UnixMilli(), 10)
	}
	records, err := s.cfg.Redis.Redis().ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: s.keys.trail(driver), ByScore: true, Rev: true,
		Start: last, Stop: strconv.FormatInt(from.UnixMilli(), 10), Count: int64(limit),
	}).Result()
	if err != nil {
		return nil, err
	}
	trail := make([]dray.Driver, 0, len(records))
	for _, record := range slices.Backward(records) {
		d, err := parseDriver([]byte(record))
		if err != nil {
			s.BadRecord(0, driver)
			continue
		}
		trail = append(trail, d)
	}
	return trail, nil
}
