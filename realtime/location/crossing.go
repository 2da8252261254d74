package location

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn"
)

// How a driver moves to another bucket where buckets have several partitions (Cluster). In
// one partition report.lua does it all at once. Here the writes go to up to three slots:
//
//  1. report.lua  writes the record into the new bucket, marked as not settled
//  2. claim.lua   adds the new bucket to those that the directory names beside the old one
//  3. leave.lua   puts a tombstone that points to the new bucket into each of the others
//  4. claim.lua   has the directory name the new bucket alone, if it is still as in step 2;
//     else step 3 again, for what has come since
//  5. settle.lua  takes the mark off
//
// A driver that the directory does not know, or knows in this bucket only, skips 2 and 3. The
// directory is turned last, so it names a bucket that holds the driver or points on to it,
// wherever a node dies or a step fails. Then the mark stays, and the driver's next position
// in either bucket, once step 3 was made, or its next crossing, makes the steps that are
// missing. What no such position comes for is stale after the TTL.
//
// In each bucket the newest timestamp stands. Of equal ones that stands which the directory
// named first. So that no two of them make each other leave, the others are left one by one
// from the last to the first, and what stands ends that: who finds it makes its steps too,
// and so takes himself out. Step 3 is made only for what step 2 has named with its timestamp.
type crossing struct {
	driver string
	bucket Bucket // entered
	at     int64  // ms; that of a later position in this bucket where the directory names one
}

// What claim.lua answers.
const (
	claimLost  = 0 // somebody entered another bucket later: the crossing is the late one
	claimMade  = 1 // the directory names the bucket alone
	claimLeave = 2 // it names others that are to be left first
)

// A move is a crossing under way.
type move struct {
	crossing
	claim int
	entry dirEntry  // what the directory holds after the claim
	newer heldEntry // what stands against the move, in a bucket that was to be left
	err   error
}

// own is the place of the move's bucket in the entry, -1 if it is not there.
func (m *move) own() int {
	return slices.IndexFunc(m.entry.visits, func(v visit) bool { return v.bucket == m.bucket })
}

// maxClaims bounds the rounds of steps 2 to 4: each but two is for another node that moved
// the driver meanwhile.
const maxClaims = 8

var errContended = dray.Errorf(dray.CodeUnavailable, "too many nodes move this driver at once")

// cross makes steps 2 to 5, each for all crossings at once, and tells the outcomes. It returns
// what forgetGone is to check.
func (s *Store) cross(ctx context.Context, crossings []crossing, tell func(i int, o Outcome, err error)) (picked []string) {
	moves := make([]move, len(crossings))
	open := make([]*move, len(crossings))
	for i, x := range crossings {
		moves[i].crossing, open[i] = x, &moves[i]
	}
	for range maxClaims {
		picked = append(picked, s.claimAll(ctx, open)...)
		s.leaveAll(ctx, open)
		open = slices.DeleteFunc(open, func(m *move) bool {
			return m.err != nil || m.claim != claimLeave || m.newer.at > 0
		})
		if len(open) == 0 {
			break
		}
	}
	for _, m := range open {
		m.err = errContended
	}
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

// claimAll makes steps 2 and 4 and returns what claim.lua picked of the directory.
func (s *Store) claimAll(ctx context.Context, moves []*move) (picked []string) {
	calls := make([]redisconn.Call, len(moves))
	for i, m := range moves {
		part := s.keys.ofDriver(m.driver)
		calls[i] = s.scripts.claim.Call([]string{s.keys.dir(part)},
			m.driver, m.bucket.String(), m.at, s.keys.dirFeed(part), s.publish, dirExpiry.Milliseconds(), m.entry.text)
	}
	for i, cmd := range s.cfg.Redis.RunAll(ctx, calls) {
		answer, err := cmd.StringSlice()
		if moves[i].err = err; err == nil {
			m := moves[i]
			m.claim, _ = strconv.Atoi(answer[0])
			m.entry = parseDirEntry(answer[1])
			if own := m.own(); m.claim == claimLeave && own >= 0 {
				m.at = max(m.at, m.entry.visits[own].at)
			}
			picked = append(picked, answer[2:]...)
		}
	}
	return picked
}

// leaveAll makes step 3: a driver leaves the bucket that it entered too late, or those in
// which it was before.
func (s *Store) leaveAll(ctx context.Context, moves []*move) {
	for n := 0; ; n++ {
		var going []*move
		var from []Bucket
		var calls []redisconn.Call
		for _, m := range moves {
			if b, call, ok := s.departure(m, n); ok {
				going, from, calls = append(going, m), append(from, b), append(calls, call)
			}
		}
		if len(calls) == 0 {
			return
		}
		for i, cmd := range s.cfg.Redis.RunAll(ctx, calls) {
			m := going[i]
			held, err := parseHeld(cmd)
			held.bucket = from[i]
			switch {
			case err != nil:
				m.err = err
			case held.live || held.to != m.bucket: // else somebody has made this step for us
				m.newer = held
			}
		}
	}
}

// departure is the call for the nth bucket that m is to leave; false when there is none, or
// something stands against the move.
func (s *Store) departure(m *move, n int) (Bucket, redisconn.Call, bool) {
	switch {
	case m.err != nil || m.newer.at > 0:
	case m.claim == claimLost && n == 0:
		to := m.entry.visits[0]
		return m.bucket, s.leaveCall(m.driver, m.bucket, to.at, moveTo(to.bucket), false), true
	case m.claim == claimLeave:
		own := m.own()
		i := len(m.entry.visits) - 1 - n // the last first
		if i <= own {
			i-- // not itself
		}
		if i >= 0 {
			v := m.entry.visits[i]
			stands := i == 0 || i < own && v.at == m.at
			return v.bucket, s.leaveCall(m.driver, v.bucket, m.at, moveTo(m.bucket), stands), true
		}
	}
	return 0, redisconn.Call{}, false
}

// settleAll makes step 5 for the moves that succeeded.
func (s *Store) settleAll(ctx context.Context, moves []move) {
	var settled []*move
	var calls []redisconn.Call
	for i := range moves {
		if m := &moves[i]; m.err == nil && m.claim == claimMade {
			settled = append(settled, m)
			calls = append(calls, s.scripts.settle.Call([]string{s.keys.records(m.bucket)}, m.driver, m.at))
		}
	}
	for i, cmd := range s.cfg.Redis.RunAll(ctx, calls) {
		settled[i].err = cmd.Err()
	}
}

// outcome tells what became of a move. What was found to stand against it has its own steps
// made. From one such to the next timestamps grow, or the place in the directory falls, so this ends.
func (s *Store) outcome(ctx context.Context, m *move) (Outcome, error) {
	newer := m.newer
	switch {
	case m.err != nil:
		return Refused, m.err
	case newer.live: // also where it is the bucket of a late crossing, which has heard of the driver since
		o, err := s.crossOne(ctx, crossing{driver: m.driver, bucket: newer.bucket, at: newer.at})
		if err == nil && o != Stored && newer.at == m.at { // it gave way to a third, which may be ours
			return s.crossOne(ctx, m.crossing)
		}
		return Superseded, err
	case m.claim == claimLost:
		return Superseded, nil
	case newer.at > 0: // it left another bucket later than it came here
		to := newer.to
		if to == 0 { // to go offline
			to = newer.bucket
		}
		held, err := s.leave(ctx, m.driver, m.bucket, m.at, moveTo(to))
		if err == nil && held.live {
			_, err = s.crossOne(ctx, crossing{driver: m.driver, bucket: m.bucket, at: held.at})
		}
		return Superseded, err
	}
	return Stored, nil
}

func (s *Store) crossOne(ctx context.Context, x crossing) (o Outcome, err error) {
	s.cross(ctx, []crossing{x}, func(_ int, told Outcome, e error) { o, err = told, e })
	return o, err
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

func (s *Store) forgetCall(driver, entry string) redisconn.Call {
	return s.scripts.forget.Call([]string{s.keys.dir(s.keys.ofDriver(driver))}, driver, entry)
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
			forgets = append(forgets, s.forgetCall(driver, held))
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

// A dirEntry is what the directory holds of a driver (keys.go): the bucket that it entered,
// then those that it is about to enter, in the order in which they were named.
type dirEntry struct {
	visits []visit
	text   string
}

type visit struct {
	bucket Bucket
	at     int64 // ms, when it entered
}

// bucket is where the driver is; 0 for the entry of none.
func (e *dirEntry) bucket() Bucket {
	if len(e.visits) == 0 {
		return 0
	}
	return e.visits[0].bucket
}

// parseDirEntry reads pairs of "<cell> <timestamp>"; the zero entry for anything else.
func parseDirEntry(s string) dirEntry {
	words := strings.Fields(s)
	e := dirEntry{text: s}
	for i := 0; i+1 < len(words); i += 2 {
		b, at := ParseBucket(words[i]), int64(0)
		if n, err := strconv.ParseInt(words[i+1], 10, 64); err == nil {
			at = n
		}
		if b == 0 || at == 0 {
			return dirEntry{}
		}
		e.visits = append(e.visits, visit{b, at})
	}
	return e
}
