package location

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn"
)

// keepTrails adds every position of reports, superseded ones too, to its driver's trail.
func (s *Store) keepTrails(ctx context.Context, reports []report) error {
	keys := make([][]string, len(s.partitions))
	args := make([][]any, len(s.partitions))
	for i := range reports {
		part := s.keys.ofDriver(reports[i].driver)
		if keys[part] == nil {
			args[part] = []any{s.cfg.TrailLength, s.cfg.trailAge().Milliseconds()}
		}
		for r := &reports[i]; r != nil; r = r.older {
			keys[part] = append(keys[part], s.keys.trail(r.driver))
			args[part] = append(args[part], r.at, r.text[r.record+len(strconv.FormatInt(r.at, 10)):])
		}
	}
	var calls []redisconn.Call
	for part := range keys {
		if keys[part] != nil {
			calls = append(calls, s.scripts.trail.Call(keys[part], args[part]...))
		}
	}
	for _, cmd := range s.cfg.Redis.RunAll(ctx, calls) {
		if err := cmd.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Trail returns at most limit recent positions of driver taken in [from, to] (a zero time
// is no bound), oldest first; where there are more, the newest of them. limit is within
// [1, dray.MaxLimit]. It fails with dray.ErrNotFound where trails are off. One round trip.
func (s *Store) Trail(ctx context.Context, driver string, from, to time.Time, limit int) ([]dray.Driver, error) {
	switch {
	case s.cfg.TrailLength == 0:
		return nil, dray.Errorf(dray.CodeNotFound, "trails are off on this server")
	case !dray.ValidID(driver):
		return nil, badDriver()
	case limit < 1 || limit > dray.MaxLimit:
		return nil, dray.FieldError(dray.CodeBadRequest, "limit", "must be within 1 and %d", dray.MaxLimit)
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
