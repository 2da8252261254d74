package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"dray"
)

// run serves one connection after the other, until the Client ends.
func (c *Client) run(ctx context.Context, cn *conn) {
	failed := 0 // attempts and short-lived connections in a row
	for {
		began := time.Now()
		c.setConn(cn)
		err := cn.serve(ctx)
		c.setConn(nil)
		if time.Since(began) > c.cfg.maxBackoff() {
			failed = 0
		}
		least := cn.retryAfter
		for cn = nil; cn == nil; failed++ {
			if ctx.Err() != nil {
				return
			}
			if !mayReturn(err) {
				c.end(err)
				c.status(Status{Err: err})
				return
			}
			wait := c.backoff(failed, least)
			c.cfg.Logger.Info("connection lost, will come back", "error", err, "in", wait)
			c.status(Status{Err: err, RetryIn: wait})
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			cn, err = c.connect(ctx)
			least = 0
			if e, ok := errors.AsType[*dray.Error](err); ok {
				least = e.RetryAfter
			}
		}
	}
}

// mayReturn tells whether to try again after err: a connection that ended, or was refused.
// Of refusals only those that are about the caller are for good: a 404 or 502 may be the
// word of a proxy whose server is just starting.
func mayReturn(err error) bool {
	if e, ok := errors.AsType[*CloseError](err); ok {
		return dray.Reconnects(e.Number)
	}
	return !errors.Is(err, dray.ErrUnauthenticated) && !errors.Is(err, dray.ErrForbidden)
}

// backoff is how long to wait before attempt n, counted from 0: twice as long each time,
// the half of it at random, so that the clients of a lost node do not come back as one. A
// server that said when to come back is taken at its word.
func (c *Client) backoff(n int, least time.Duration) time.Duration {
	d := min(c.cfg.minBackoff()<<min(n, 20), c.cfg.maxBackoff())
	d = d/2 + rand.N(d/2+1)
	if least > 0 {
		return least + d
	}
	return d
}

func (c *Client) setConn(cn *conn) {
	c.mu.Lock()
	c.conn = cn
	if cn != nil {
		c.window.rewind()
		cn.wakeWriter()
	}
	c.changedLocked()
	c.mu.Unlock()
	if cn != nil {
		c.status(Status{Connected: true, Welcome: cn.welcome})
	}
}

func (c *Client) status(s Status) {
	if c.cfg.OnStatus != nil {
		c.cfg.OnStatus(s)
	}
}

// pace keeps a connection under the server's limit of messages, so that it is never told
// off. It lets a burst of half a second through.
type pace struct {
	every time.Duration // 0 is no limit
	next  time.Time     // when a message may go that leaves no burst
}

func newPace(perSecond float64) *pace {
	if perSecond <= 0 {
		return &pace{}
	}
	return &pace{every: time.Duration(float64(time.Second) / perSecond * 1.05)}
}

// wait waits until a message of so many bytes may go: it counts once more for each 16 KiB.
// It returns false if ctx ends first.
func (p *pace) wait(ctx context.Context, bytes int) bool {
	if p.every == 0 {
		return true
	}
	now := time.Now()
	if earliest := now.Add(-time.Second / 2); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(p.every * time.Duration(1+bytes/(16<<10)))
	early := p.next.Sub(now)
	if early <= 0 {
		return true
	}
	select {
	case <-time.After(early):
		return true
	case <-ctx.Done():
		return false
	}
}
