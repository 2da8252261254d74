package loadtest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"dray"
)

// A NearbyPlan is people who ask who is near.
type NearbyPlan struct {
	Plan
	Radius      float64 // metres
	Limit       int
	Connections int
	InFlight    int  // questions of a connection under way
	HTTP        bool // ask over REST, one question at a time
}

// Validate checks p.
func (p *NearbyPlan) Validate() error {
	if err := p.Plan.Validate(); err != nil {
		return err
	}
	switch {
	case !(p.Radius > 0 && p.Radius <= dray.MaxRadius):
		return fmt.Errorf("--radius must be over 0 and at most %.0f m", dray.MaxRadius)
	case p.Limit < 1 || p.Limit > dray.MaxLimit:
		return fmt.Errorf("--limit must be 1 to %d", dray.MaxLimit)
	case p.Connections < 1 || p.Connections > 60_000:
		return errors.New("--connections must be 1 to 60000")
	case p.InFlight < 1 || p.InFlight > 1000:
		return errors.New("--in-flight must be 1 to 1000")
	}
	return nil
}

// Nearby measures questions for the nearest drivers to random places, and compares some of
// the answers with a plain computation. The drivers stand still, so that Redis shows what
// the questions alone ask of it.
func Nearby(ctx context.Context, t Target, p *NearbyPlan) (*Result, error) {
	r := newRun(ctx, "nearby", t, &p.Plan)
	defer r.end()
	f := newFleet(&p.Plan)
	if err := r.load(f); err != nil {
		return nil, err
	}
	if err := r.attach(f, p); err != nil {
		return nil, err
	}
	r.say("connecting %d askers", p.Connections)
	q := &questions{plan: p, fleet: f}
	if p.HTTP {
		base, err := t.base()
		if err != nil {
			return nil, err
		}
		for i := range p.Connections {
			r.goRun(func() error { return r.askHTTP(i, base, q) })
		}
	} else {
		sockets, err := r.dial(p.Connections)
		if err != nil {
			return nil, err
		}
		for i, s := range sockets {
			random := rand.New(rand.NewPCG(p.Seed, uint64(100+i)))
			a := &asker{
				run: r, socket: s, shard: i, radius: p.Radius, limit: p.Limit, slots: make([]question, p.InFlight),
				place: func(int) dray.Point { return f.somewhere(random) },
			}
			r.goRun(func() error { return a.loop(q) })
		}
	}
	if err := r.measure("questions"); err != nil {
		return nil, err
	}
	r.counted()
	r.stopping.Store(true)
	q.verify(r)
	return r.result, nil
}

// attachWait is how long a server may take until it has answered for every part of the square.
const attachWait = 2 * time.Minute

// attach asks once for every part of the square, so that a server that answers from copies
// has them. Refusals that may be tried again are.
func (r *run) attach(f *fleet, p *NearbyPlan) error {
	r.say("asking once for each part of the square")
	sockets, err := r.dial(1)
	if err != nil {
		return err
	}
	defer context.AfterFunc(r.ctx, sockets[0].close)()
	step := max(5000, p.Spread/40) // metres
	parts := int(math.Ceil(p.Spread / step))
	a := &asker{
		run: r, socket: sockets[0], slots: make([]question, 1), radius: 0.75 * step, limit: 1,
		place: func(n int) dray.Point {
			return f.at((float64(n/parts)+0.5)/float64(parts), (float64(n%parts)+0.5)/float64(parts))
		},
	}
	for end := time.Now().Add(attachWait); a.asked < parts*parts; {
		if err := a.ask(0); err != nil {
			return err
		}
		for answered := false; !answered; {
			b, err := a.socket.read()
			if err != nil {
				return cmp.Or(context.Cause(r.ctx), err)
			}
			_, answered, err = a.answer(b)
			if e, ok := errors.AsType[*dray.Error](err); ok && e.Code.Retryable() && time.Now().Before(end) {
				answered = true
				a.asked-- // the same place again
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// questions keeps a sample of what was asked and answered.
type questions struct {
	plan  *NearbyPlan
	fleet *fleet

	mu   sync.Mutex // guards kept
	kept []answered
}

type question struct {
	center dray.Point
	sent   int64
}

type answered struct {
	question
	body []byte
}

// keepEvery is how many answers pass for each that is kept to be checked.
const keepEvery = 16

// keep takes a copy of an answer, while there is room for more.
func (q *questions) keep(x question, body []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.kept) < q.plan.Check {
		q.kept = append(q.kept, answered{x, bytes.Clone(body)})
	}
}

// An asker is one connection that asks over the WebSocket.
type asker struct {
	run    *run
	socket *socket
	shard  int
	radius float64
	limit  int
	place  func(n int) dray.Point // of its n-th question
	asked  int
	slots  []question // under way, by id
	frame  []byte
}

func (a *asker) ask(id int) error {
	at := a.place(a.asked)
	a.asked++
	b := append(begin(a.frame), `{"type":"nearby","id":`...)
	b = strconv.AppendInt(b, int64(id), 10)
	b = append(b, `,"latitude":`...)
	b = dray.AppendNumber(b, at.Latitude)
	b = append(b, `,"longitude":`...)
	b = dray.AppendNumber(b, at.Longitude)
	b = append(b, `,"radius":`...)
	b = dray.AppendNumber(b, a.radius)
	b = append(b, `,"limit":`...)
	b = strconv.AppendInt(b, int64(a.limit), 10)
	b = append(b, '}')
	a.frame, a.slots[id] = b, question{at, nanos()}
	return a.socket.write(finish(b, opText))
}

// answer tells which question b answers; false when none. A refusal is a [*dray.Error].
func (a *asker) answer(b []byte) (id int, ok bool, err error) {
	c := cursor{b: b}
	if !c.take(`{"type":"result","id":`) {
		var r reply
		if err := r.strict(b); err != nil {
			return 0, false, err
		}
		if r.kind == replyError {
			return 0, false, fmt.Errorf("the server refused a question: %w", &dray.Error{Code: r.code, Message: r.message})
		}
		return 0, false, nil
	}
	id = int(c.natural())
	c.expect(`,"drivers":`)
	if c.bad || id >= len(a.slots) {
		return 0, false, fmt.Errorf("not an answer to a question: %.100s", b)
	}
	return id, true, nil
}

// loop asks, and asks again when answered.
func (a *asker) loop(q *questions) error {
	for id := range a.slots {
		if err := a.ask(id); err != nil {
			return err
		}
	}
	for !a.run.stopping.Load() {
		b, err := a.socket.read()
		if err != nil {
			return err
		}
		now := nanos()
		id, ok, err := a.answer(b)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		a.run.meter.done(a.shard, a.slots[id].sent, now, 1)
		if a.asked%keepEvery == 0 {
			q.keep(a.slots[id], b)
		}
		if err := a.ask(id); err != nil {
			return err
		}
	}
	return nil
}

// askHTTP is one connection that asks over REST, kept alive.
func (r *run) askHTTP(shard int, base string, q *questions) error {
	u, err := url.Parse(base)
	if err != nil {
		return err
	}
	if u.Scheme != "http" {
		return errors.New("--http is not for TLS")
	}
	conn, err := new(net.Dialer).DialContext(r.ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(r.ctx, func() { conn.Close() })()
	random := rand.New(rand.NewPCG(q.plan.Seed, uint64(100+shard)))
	in := bufio.NewReaderSize(conn, 32<<10)
	var out []byte
	var body bytes.Buffer
	for n := 1; !r.stopping.Load(); n++ {
		x := question{q.fleet.somewhere(random), 0}
		out = fmt.Appendf(out[:0], "GET /v1/drivers/nearby?latitude=%v&longitude=%v&radius=%v&limit=%d HTTP/1.1\r\nHost: %s\r\n\r\n",
			x.center.Latitude, x.center.Longitude, q.plan.Radius, q.plan.Limit, u.Host)
		x.sent = nanos()
		if _, err := conn.Write(out); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		body.Reset()
		if _, err := io.Copy(&body, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the server refused a question: %s: %.200s", resp.Status, body.Bytes())
		}
		r.meter.done(shard, x.sent, nanos(), 1)
		if n%keepEvery == 0 {
			q.keep(x, body.Bytes())
		}
	}
	return nil
}

// A search of a large fleet takes tens of milliseconds, so after a while it is enough.
const (
	leastChecked = 100
	checkFor     = 5 * time.Second
)

// verify compares the answers that were kept with a search of the whole fleet.
func (q *questions) verify(r *run) {
	q.mu.Lock()
	kept := q.kept
	q.mu.Unlock()
	r.say("checking up to %d answers", len(kept))
	c := r.result.check("answers are the nearest drivers, in order", 0)
	for began := time.Now(); int(c.Checked) < len(kept); {
		if c.Checked >= leastChecked && time.Since(began) > checkFor {
			break
		}
		x := kept[c.Checked]
		c.Checked++
		if wrong := q.wrong(&x, cmp.Or(r.target.Tolerance, 0.01)); wrong != "" {
			c.fail(1, "at %v: %s", x.center, wrong)
		}
	}
	if c.Checked == 0 && q.plan.Check > 0 {
		c.fail(1, "no answer came to be checked")
	}
}

// wrong tells how an answer differs from the truth, beside distances that are off by up to
// tolerance; "" when it does not.
func (q *questions) wrong(x *answered, tolerance float64) string {
	var body struct {
		Drivers []dray.Driver `json:"drivers"`
	}
	if err := dray.Unmarshal(x.body, &body); err != nil {
		return err.Error()
	}
	var truth []float64
	for _, p := range q.fleet.acked {
		if d := dray.Distance(x.center, p.point()); d <= q.plan.Radius {
			truth = append(truth, d)
		}
	}
	slices.Sort(truth)
	truth = truth[:min(len(truth), q.plan.Limit)]
	var got []dray.Driver // but for drivers that are not of this run
	for i := range body.Drivers {
		if q.fleet.index([]byte(body.Drivers[i].Driver)) >= 0 {
			got = append(got, body.Drivers[i])
		}
	}
	foreign := len(body.Drivers) - len(got)
	if !slices.IsSortedFunc(got, func(a, b dray.Driver) int { return cmp.Compare(a.Distance, b.Distance) }) {
		return "not in the order of distance"
	}
	seen := map[string]bool{}
	for i := range got {
		d := &got[i]
		want := q.fleet.acked[q.fleet.index([]byte(d.Driver))]
		distance := dray.Distance(x.center, want.point())
		switch {
		case seen[d.Driver]:
			return d.Driver + " stands in it twice"
		case entryOf(d).place != want:
			return fmt.Sprintf("%s is %v, and %v was acknowledged", d.Driver, entryOf(d).place, want)
		case math.Abs(d.Distance-distance) > tolerance:
			return fmt.Sprintf("%s is said to be %.3f m away, and is %.3f m", d.Driver, d.Distance, distance)
		case i >= len(truth) && distance < q.plan.Radius-tolerance || i < len(truth) && math.Abs(distance-truth[i]) > tolerance:
			return fmt.Sprintf("%s, %.3f m away, has place %d, where another is nearer", d.Driver, distance, i+1)
		}
		seen[d.Driver] = true
	}
	if len(got)+foreign < len(truth) && truth[len(got)] < q.plan.Radius-tolerance {
		return fmt.Sprintf("%d drivers, and there are %d", len(got), len(truth))
	}
	return ""
}
