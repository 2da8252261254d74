package httpapi

import "time"

// A bucket is a budget of so many tokens a second, to be saved up to a burst. It may run
// into debt, which the caller pays by waiting.
type bucket struct {
	rate, burst float64
	tokens      float64
	at          time.Time // when tokens was right
}

func newBucket(rate, burst float64) bucket {
	return bucket{rate: rate, burst: burst, tokens: burst}
}

// take takes cost tokens and returns what is left, below zero when in debt.
func (b *bucket) take(now time.Time, cost float64) float64 {
	if !b.at.IsZero() {
		b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	b.tokens -= cost
	return b.tokens
}

// debt is how long it takes until the bucket is out of debt.
func (b *bucket) debt() time.Duration {
	return time.Duration(max(0, -b.tokens) / b.rate * float64(time.Second))
}

// A verdict is what becomes of a message that came now.
type verdict uint8

const (
	pass   verdict = iota // handle it, after the wait
	refuse                // answer rate_limited, to be retried after the wait
	flood                 // close: the client was refused and went on
)

const (
	patience    = 5 * time.Second       // of slowing a client down before refusing it
	refusal     = time.Second           // for which a client is refused
	maxRefusals = 2                     // in a row, after which it floods
	leastWait   = 20 * time.Millisecond // a shorter debt is not worth a timer
	slack       = 50 * time.Millisecond // of the rate, saved up: the client sends less than it may
)

// A throttle decides on the messages of one connection: it slows them to the rate, refuses
// them when that had to go on for longer than patience, and gives the connection up when it
// still sends in the second half of each refusal (what comes in the first was on its way).
type throttle struct {
	bucket
	since    time.Time // the bucket ran dry, and had no slack since; zero otherwise
	until    time.Time // messages are refused until then; zero when they are not
	late     float64   // tokens that came of waiting for longer than was due
	deaf     int       // messages in the second half of this refusal
	refusals int       // in a row
}

func newThrottle(rate, burst int) throttle {
	return throttle{bucket: newBucket(float64(rate), float64(burst))}
}

// admit decides on a message that costs so many tokens. A rate of 0 admits all.
func (t *throttle) admit(now time.Time, cost float64) (v verdict, wait time.Duration) {
	if t.rate == 0 {
		return pass, 0
	}
	if !t.until.IsZero() {
		if now.Before(t.until) {
			if now.After(t.until.Add(-refusal / 2)) {
				t.deaf++
			}
			return refuse, t.until.Sub(now)
		}
		if t.refusals++; float64(t.deaf) > t.rate/10 {
			if t.refusals >= maxRefusals {
				return flood, 0
			}
			t.until, t.deaf = now.Add(refusal), 0
			return refuse, refusal
		}
		*t = throttle{bucket: t.bucket}
		t.at, t.tokens = now, t.burst/2
	}
	left := t.take(now, cost)
	t.late -= min(t.late, cost)
	switch {
	case left-t.late >= t.rate*slack.Seconds():
		t.since = time.Time{}
	case left >= 0:
	case t.since.IsZero():
		t.since = now
	case now.Sub(t.since) > patience:
		t.tokens += cost
		t.until, t.deaf = now.Add(refusal), 0
		return refuse, refusal
	}
	if wait = t.debt(); wait < leastWait {
		wait = 0
	}
	return pass, wait
}

// charge takes what a message costs that was admitted already; the next ones pay the debt.
func (t *throttle) charge(now time.Time, cost float64) {
	if t.rate == 0 || cost == 0 {
		return
	}
	t.take(now, cost)
	t.late -= min(t.late, cost)
}

// waited tells that the wait is over. What a timer's lateness earned the client may be
// spent, but is no sign that it sends less than it may.
func (t *throttle) waited(now time.Time) {
	t.late += max(0, t.take(now, 0))
}

// strikes remembers when the last maxBad bad messages came.
type strikes struct {
	at   []time.Time // a ring
	next int
}

// add notes one more and tells whether maxBad others came in the time before it.
func (s *strikes) add(now time.Time) (out bool) {
	if len(s.at) < maxBad {
		s.at = append(s.at, now)
		return false
	}
	out = now.Sub(s.at[s.next]) < badEvery
	s.at[s.next] = now
	s.next = (s.next + 1) % maxBad
	return out
}
