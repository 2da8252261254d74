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
//  2. claim.lua   writes the new bucket into the directory, and beside it the old one
//  3. leave.lua   puts a tombstone into the old bucket
//  4. settle.lua  takes the mark off; forget.lua takes the old bucket out of the directory
//
// In each bucket and in the directory the newest timestamp stands, and of equal ones what was
// there first, so two nodes that move one driver at once end alike in whatever order their
// steps come. A node that dies after step 1 or 2, or whose step fails, leaves the mark, and
// the next position of the driver in that bucket makes the steps that follow; the directory
// then still names the bucket to be left. So does the driver's next crossing. If neither
// comes, what was left behind is stale after the TTL.
type crossing struct {
	driver string
	bucket Bucket // entered
	at     int64  // ms
	stands bool   // was there before what is in the directory, so it wins at an equal timestamp
}

// A move is a crossing under way.
type move struct {
	crossing
	entry dirEntry  // what the directory holds after the claim
	newer heldEntry // the newest of what forbids the move, in the buckets that were to be left
	err   error
}

// lost tells that somebody entered another bucket later: the crossing is the late one.
func (m *move) lost() bool { return m.entry.bucket != m.bucket }

// cross makes steps 2 to 4, each for all crossings at once, and tells the outcomes. It returns
// what forgetGone is to check.
func (s *Store) cross(ctx context.Context, crossings []crossing, tell func(i int, o Outcome, err error)) (picked []string) {
	moves := make([]move, len(crossings))
	for i, x := range crossings {
		moves[i].crossing = x
	}
	picked = s.claimAll(ctx, moves)
	s.leaveAll(ctx, moves)
	s.settleAll(ctx, moves)
	for i := range moves {
		o, err := s.outcome(ctx, &moves[i])
		if err != nil {
			o = Refused
		}
		tell(i, o, err)
	}
	return picked
}

// claimAll makes step 2 and returns what claim.lua picked of the directory.
func (s *Store) claimAll(ctx context.Context, moves []move) (picked []string) {
	calls := make([]redisconn.Call, len(moves))
	for i := range moves {
		m := &moves[i]
		part, stands := s.keys.ofDriver(m.driver), 0
		if m.stands {
			stands = 1
		}
		calls[i] = s.scripts.claim.Call([]string{s.keys.dir(part)},
			m.driver, m.bucket.String(), m.at, s.keys.dirFeed(part), s.publish, dirExpiry.Milliseconds(), stands)
	}
	for i, cmd := range s.cfg.Redis.RunAll(ctx, calls) {
		answer, err := cmd.StringSlice()
		if moves[i].err = err; err == nil {
			moves[i].entry = parseDirEntry(answer[0])
			picked = append(picked, answer[1:]...)
		}
	}
	return picked
}

// leaveAll makes step 3: a driver leaves the bucket that it entered too late, or those in
// which it was before.
func (s *Store) leaveAll(ctx context.Context, moves []move) {
	type departure struct {
		*move
		from Bucket
	}
	var departures []departure
	var calls []redisconn.Call
	for i := range moves {
		m := &moves[i]
		switch {
		case m.err != nil:
		case m.lost():
			departures = append(departures, departure{m, m.bucket})
			calls = append(calls, s.leaveCall(m.driver, m.bucket, m.entry.at, moveTo(m.entry.bucket), false))
		default:
			for _, b := range m.entry.left {
				departures = append(departures, departure{m, b})
				calls = append(calls, s.leaveCall(m.driver, b, m.at, moveTo(m.bucket), !m.stands))
			}
		}
	}
	for i, cmd := range s.cfg.Redis.RunAll(ctx, calls) {
		d := departures[i]
		newer, err := parseHeld(cmd)
		newer.bucket = d.from
		switch {
		case err != nil:
			d.err = err
		case !newer.live && newer.to == d.bucket: // somebody has made this step for us
		case newer.at > d.newer.at:
			d.newer = newer
		}
	}
}

// settleAll makes step 4 for the moves that succeeded.
func (s *Store) settleAll(ctx context.Context, moves []move) {
	var settled []*move
	var calls, tidy []redisconn.Call
	for i := range moves {
		m := &moves[i]
		if m.err != nil || m.lost() || m.newer.at > 0 {
			continue
		}
		settled = append(settled, m)
		calls = append(calls, s.scripts.settle.Call([]string{s.keys.records(m.bucket)}, m.driver, m.at))
		if len(m.entry.left) > 0 {
			tidy = append(tidy, s.forgetCall(m.driver, m.entry.text, m.entry.settled()))
		}
	}
	results := s.cfg.Redis.RunAll(ctx, append(calls, tidy...))
	for i, m := range settled { // where tidying fails, the bucket is left once more, which does nothing
		m.err = results[i].Err()
	}
}

// outcome tells what became of a move. What was found to be newer than it is put right.
// From step to step timestamps grow, and one that stands leaves nothing equal, so this ends.
func (s *Store) outcome(ctx context.Context, m *move) (Outcome, error) {
	newer := m.newer
	switch {
	case m.err != nil:
		return Refused, m.err
	case m.lost() && newer.live: // the bucket has heard of the driver since
		return Superseded, s.crossOne(ctx, crossing{driver: m.driver, bucket: m.bucket, at: newer.at})
	case m.lost():
		return Superseded, nil
	case newer.live: // an old bucket has: this one is what it left
		return Superseded, s.crossOne(ctx, crossing{driver: m.driver, bucket: newer.bucket, at: newer.at, stands: true})
	case newer.at > 0: // it left an old bucket later than it came here
		to := newer.to
		if to == 0 { // to go offline
			to = newer.bucket
		}
		held, err := s.leave(ctx, m.driver, m.bucket, newer.at, moveTo(to))
		if err == nil && held.live {
			err = s.crossOne(ctx, crossing{driver: m.driver, bucket: m.bucket, at: held.at})
		}
		return Superseded, err
	}
	return Stored, nil
}

func (s *Store) crossOne(ctx context.Context, x crossing) (err error) {
	s.cross(ctx, []crossing{x}, func(_ int, _ Outcome, e error) { err = e })
	return err
}

// A heldEntry is what leave.lua found to be newer; at is 0 where it found nothing.
type heldEntry struct {
	at     int64
	live   bool   // else a tombstone
	to     Bucket // of a tombstone: where the driver went; 0 when offline
	bucket Bucket // where it is held
}

// leave puts a tombstone into a bucket; at 0 keeps the timestamp that is held.
func (s *Store) leave(ctx context.Context, driver string, b Bucket, at int64, why string) (heldEntry, error) {
	return parseHeld(s.cfg.Redis.RunAll(ctx, []redisconn.Call{s.leaveCall(driver, b, at, why, false)})[0])
}

func (s *Store) leaveCall(driver string, b Bucket, at int64, why string, equalStands bool) redisconn.Call {
	atText, equal := "", 0
	if at > 0 {
		atText = strconv.FormatInt(at, 10)
	}
	if equalStands {
		equal = 1
	}
	return s.scripts.leave.Call([]string{s.keys.records(b), s.keys.geo(b)},
		driver, atText, why, s.keys.feed(b), s.publish, equal)
}

// parseHeld reads the answer of leave.lua.
func parseHeld(cmd *redis.Cmd) (heldEntry, error) {
	answer, err := cmd.Text()
	if err != nil || answer == "" {
		return heldEntry{}, err
	}
	at, to, _ := strings.Cut(answer[1:], " ")
	newer, err := strconv.ParseInt(at, 10, 64)
	return heldEntry{at: newer, live: answer[0] == 'r', to: ParseBucket(to)}, err
}

func moveTo(b Bucket) string { return `"to":"` + b.String() + `"` }

func (s *Store) forgetCall(driver, entry, instead string) redisconn.Call {
	return s.scripts.forget.Call([]string{s.keys.dir(s.keys.ofDriver(driver))}, driver, entry, instead)
}

// forgetGone checks entries of the directory that claim.lua picked at random, and takes
// out those whose bucket knows nothing of the driver. It is housekeeping: what fails now is
// picked again some day.
func (s *Store) forgetGone(picked []string) {
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	var looks, forgets []redisconn.Call
	for i := 0; i+1 < len(picked); i += 2 {
		driver, held := picked[i], picked[i+1]
		if b := ParseDirectoryEntry(held); b != 0 {
			looks = append(looks, redisconn.Command("HEXISTS", s.keys.records(b), driver))
			forgets = append(forgets, s.forgetCall(driver, held, ""))
		}
	}
	var gone []redisconn.Call
	for i, cmd := range s.cfg.Redis.RunAll(ctx, looks) {
		if there, err := cmd.Int(); err == nil && there == 0 {
			gone = append(gone, forgets[i])
		} else if err != nil {
			s.cfg.Logger.Debug("directory not checked", "error", err)
		}
	}
	for _, cmd := range s.cfg.Redis.RunAll(ctx, gone) {
		if err := cmd.Err(); err != nil {
			s.cfg.Logger.Debug("directory not tidied", "error", err)
		}
	}
}

// A dirEntry is what the directory holds of a driver (keys.go).
type dirEntry struct {
	bucket Bucket
	at     int64    // ms, when it entered
	left   []Bucket // where it was before, and may still seem to be
	text   string
}

// parseDirEntry reads "<cell> <timestamp>", then the cells left; the zero entry for anything else.
func parseDirEntry(s string) dirEntry {
	words := strings.Fields(s)
	if len(words) < 2 {
		return dirEntry{}
	}
	at, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil {
		return dirEntry{}
	}
	e := dirEntry{bucket: ParseBucket(words[0]), at: at, text: s}
	for _, cell := range words[2:] {
		if b := ParseBucket(cell); b != 0 {
			e.left = append(e.left, b)
		}
	}
	return e
}

// settled is the entry's text when its buckets have been left.
func (e *dirEntry) settled() string { return e.bucket.String() + " " + strconv.FormatInt(e.at, 10) }
