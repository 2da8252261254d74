package location

import (
	"context"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"dray/redisconn"
)

// How a driver moves to another bucket where buckets have several partitions (Cluster). In
// one partition report.lua does it all at once. Here the writes go to up to three slots:
//
//  1. report.lua  writes the record into the new bucket, marked as not settled
//  2. claim.lua   writes the new bucket into the directory and gets the old one
//  3. leave.lua   puts a tombstone into the old bucket; settle.lua takes the mark off
//
// In each bucket and in the directory the newest timestamp stands, so two nodes that move
// one driver at once end alike in whatever order their steps come. A node that dies after
// step 1 leaves the mark, and the next position of the driver in that bucket makes steps
// 2 and 3; if none comes, both copies are stale after the TTL.
type crossing struct {
	driver string
	bucket Bucket // entered
	at     int64  // ms
}

// cross makes steps 2 and 3 of each crossing and tells the outcomes.
func (s *Store) cross(ctx context.Context, crossings []crossing, tell func(i int, o Outcome, err error)) {
	calls := make([]redisconn.Call, len(crossings))
	for i, x := range crossings {
		calls[i] = s.claimCall(x)
	}
	for i, cmd := range s.cfg.Redis.RunAll(ctx, calls) {
		o, err := s.settleCrossing(ctx, crossings[i], cmd)
		if err != nil {
			o = Refused
		}
		tell(i, o, err)
	}
}

func (s *Store) claimCall(x crossing) redisconn.Call {
	part := s.keys.ofDriver(x.driver)
	return s.scripts.claim.Call([]string{s.keys.dir(part)},
		x.driver, x.bucket.String(), x.at, s.keys.dirFeed(part), s.publish, dirExpiry.Milliseconds())
}

// settleCrossing acts on what the directory answered to a claim.
func (s *Store) settleCrossing(ctx context.Context, x crossing, claim *redis.Cmd) (Outcome, error) {
	answer, err := claim.Slice()
	if err != nil {
		return Refused, err
	}
	written, _ := answer[0].(int64)
	held, _ := answer[1].(string)
	old, oldAt := parseDirEntry(held)
	if written == 0 && old != x.bucket { // somebody entered another bucket later: ours is the late one
		return Superseded, s.leaveFor(ctx, x.driver, x.bucket, oldAt, old)
	}
	if err := s.forgetGone(ctx, answer[2:]); err != nil {
		return Refused, err
	}
	if written == 1 && old != 0 && old != x.bucket {
		// an equal timestamp there stands, as it does within a bucket: so one millisecond less
		newer, err := s.leave(ctx, x.driver, old, x.at-1, moveTo(x.bucket))
		switch {
		case err != nil:
			return Refused, err
		case newer.live: // the old bucket has heard of the driver since: this one is what it left
			return Superseded, s.claim(ctx, crossing{x.driver, old, newer.at})
		case newer.at > 0: // it left the old bucket later than it came here
			return Superseded, s.leaveFor(ctx, x.driver, x.bucket, newer.at, old)
		}
	}
	return Stored, s.settleRecord(ctx, x)
}

// leaveFor makes a driver leave b for a bucket in which it was at the time at. If b has heard
// of it since, that is claimed instead.
func (s *Store) leaveFor(ctx context.Context, driver string, b Bucket, at int64, other Bucket) error {
	newer, err := s.leave(ctx, driver, b, at, moveTo(other))
	if err == nil && newer.live {
		err = s.claim(ctx, crossing{driver, b, newer.at})
	}
	return err
}

// claim makes steps 2 and 3 for what was found to be newer. From step to step timestamps
// grow, so this ends.
func (s *Store) claim(ctx context.Context, x crossing) error {
	_, err := s.settleCrossing(ctx, x, s.cfg.Redis.RunAll(ctx, []redisconn.Call{s.claimCall(x)})[0])
	return err
}

func (s *Store) settleRecord(ctx context.Context, x crossing) error {
	return s.cfg.Redis.Run(ctx, s.scripts.settle, []string{s.keys.records(x.bucket)}, x.driver, x.at).Err()
}

// A heldEntry is what leave found to be newer; at is 0 where it found nothing.
type heldEntry struct {
	at   int64
	live bool
}

// leave puts a tombstone into a bucket; at 0 keeps the timestamp that is held.
func (s *Store) leave(ctx context.Context, driver string, b Bucket, at int64, why string) (heldEntry, error) {
	atText := ""
	if at > 0 {
		atText = strconv.FormatInt(at, 10)
	}
	answer, err := s.cfg.Redis.Run(ctx, s.scripts.leave, []string{s.keys.records(b), s.keys.geo(b)},
		driver, atText, why, s.keys.feed(b), s.publish).Text()
	if err != nil || answer == "" {
		return heldEntry{}, err
	}
	newer, err := strconv.ParseInt(answer[1:], 10, 64)
	return heldEntry{at: newer, live: answer[0] == 'r'}, err
}

func moveTo(b Bucket) string { return `"to":"` + b.String() + `"` }

// forgetGone checks entries of the directory that claim.lua picked at random, and takes
// out those whose bucket knows nothing of the driver.
func (s *Store) forgetGone(ctx context.Context, picked []any) error {
	for i := 0; i+1 < len(picked); i += 2 {
		driver, _ := picked[i].(string)
		held, _ := picked[i+1].(string)
		b, _ := parseDirEntry(held)
		if b == 0 {
			continue
		}
		there, err := s.cfg.Redis.Redis().HExists(ctx, s.keys.records(b), driver).Result()
		if err == nil && !there {
			err = s.cfg.Redis.Run(ctx, s.scripts.forget, []string{s.keys.dir(s.keys.ofDriver(driver))}, driver, held).Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseDirEntry reads "<cell> <timestamp>".
func parseDirEntry(s string) (Bucket, int64) {
	cell, at, _ := strings.Cut(s, " ")
	ms, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return 0, 0
	}
	return ParseBucket(cell), ms
}
