package location

import (
	"context"
	"strconv"
	"strings"

	"dray"
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
		answer, err := cmd.Slice()
		outcome := Refused
		if err == nil {
			outcome, err = s.settleCrossing(ctx, crossings[i], answer)
		}
		tell(i, outcome, err)
	}
}

func (s *Store) claimCall(x crossing) redisconn.Call {
	part := s.keys.ofDriver(x.driver)
	return s.scripts.claim.Call([]string{s.keys.dir(part)},
		x.driver, x.bucket.String(), x.at, s.keys.dirFeed(part), s.publish, dirExpiry.Milliseconds())
}

// settleCrossing acts on what the directory answered.
func (s *Store) settleCrossing(ctx context.Context, x crossing, answer []any) (Outcome, error) {
	if len(answer) < 2 {
		return Refused, dray.Errorf(dray.CodeInternal, "claim.lua answered %v", answer)
	}
	written, _ := answer[0].(int64)
	held, _ := answer[1].(string)
	old, oldAt := parseDirEntry(held)
	if written == 0 && old != x.bucket { // somebody entered another bucket later: ours is the late one
		_, err := s.leave(ctx, x.driver, x.bucket, oldAt, moveTo(old))
		return outcomeOf(Superseded, err)
	}
	if err := s.forgetGone(ctx, answer[2:]); err != nil {
		return Refused, err
	}
	if written == 1 && old != 0 && old != x.bucket {
		newer, err := s.leave(ctx, x.driver, old, x.at, moveTo(x.bucket))
		if err != nil {
			return Refused, err
		}
		if newer.at > 0 { // the old bucket has heard of the driver since
			_, err := s.leave(ctx, x.driver, x.bucket, newer.at, moveTo(old))
			if err == nil && newer.live {
				err = s.cfg.Redis.RunAll(ctx, []redisconn.Call{s.claimCall(crossing{x.driver, old, newer.at})})[0].Err()
			}
			return outcomeOf(Superseded, err)
		}
	}
	return outcomeOf(Stored, s.settleRecord(ctx, x))
}

func outcomeOf(o Outcome, err error) (Outcome, error) {
	if err != nil {
		return Refused, err
	}
	return o, nil
}

func (s *Store) settleRecord(ctx context.Context, x crossing) error {
	return s.cfg.Redis.Run(ctx, s.scripts.settle, []string{s.keys.records(x.bucket)}, x.driver).Err()
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
