package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"dray"
	"dray/client"
)

// A place is where a demo happens.
type place struct {
	name   string
	center dray.Point
}

var (
	austin  = place{"Austin", dray.Point{Latitude: 30.2672, Longitude: -97.7431}}
	karachi = place{"Karachi", dray.Point{Latitude: 24.8607, Longitude: 67.0011}}
	places  = map[string]place{"austin": austin, "karachi": karachi}
)

// demoRadius is how far from its center a demo's fleet keeps, and how far watch looks.
const demoRadius = 6000.0 // metres

func (p place) String() string {
	return fmt.Sprintf("%v,%v,%v", p.center.Latitude, p.center.Longitude, demoRadius)
}

// The streets are a grid of blocks, every crossing moved a little off its place, so that no
// two blocks are alike and headings are not just four.
const (
	block  = 180.0 // metres between crossings
	jitter = 40.0  // metres that a crossing may be off

	reach  = 30 // blocks that cars go from the center: reach*block is within demoRadius
	spread = 20 // blocks east, west, north and south of it that they start within
)

// A crossing is where streets meet: so many blocks east and north of the center.
type crossing struct{ east, north int }

// metres is where c lies, east and north of the center. It is the same at every call.
func (c crossing) metres() (x, y float64) {
	h := rand.New(rand.NewPCG(uint64(int64(c.east)), uint64(int64(c.north))))
	return float64(c.east)*block + (2*h.Float64()-1)*jitter, float64(c.north)*block + (2*h.Float64()-1)*jitter
}

// A car drives from crossing to crossing.
type car struct {
	driver     string
	from, to   crossing
	gone       float64 // metres behind it on the way from from to to
	speed      float64 // metres per second
	waits      float64 // seconds left at a red light
	attributes map[string]string
	changes    float64 // seconds until it is free, or busy
}

// A fleet is simulated drivers in one place, the same for the same seed.
type fleet struct {
	place place
	rand  *rand.Rand
	cars  []car
}

func newFleet(p place, n int, seed uint64) *fleet {
	f := &fleet{place: p, rand: rand.New(rand.NewPCG(seed, 1)), cars: make([]car, n)}
	for i := range f.cars {
		c := &f.cars[i]
		c.driver = fmt.Sprintf("demo-%04d", i+1)
		c.from = crossing{f.rand.IntN(2*spread+1) - spread, f.rand.IntN(2*spread+1) - spread}
		c.to = crossing{c.from.east + 1, c.from.north}
		f.turn(c)
		c.gone = f.rand.Float64() * block / 2
		f.change(c)
		c.changes *= f.rand.Float64()
	}
	return f
}

// change makes a free car busy and a busy one free, for one to five minutes.
func (f *fleet) change(c *car) {
	status := "free"
	if c.attributes["status"] == "free" || c.attributes == nil && f.rand.IntN(3) == 0 {
		status = "busy"
	}
	vehicle := c.attributes["vehicle"]
	if vehicle == "" {
		vehicle = []string{"car", "car", "van", "bike"}[f.rand.IntN(4)]
	}
	c.attributes = map[string]string{"status": status, "vehicle": vehicle} // a new map: the old one was reported
	c.changes = 60 + 240*f.rand.Float64()
}

// turn chooses the next crossing of a car that has reached c.to: mostly straight on, seldom
// back, and at the edge of the place towards its middle.
func (f *fleet) turn(c *car) {
	east, north := c.to.east-c.from.east, c.to.north-c.from.north
	switch r := f.rand.IntN(20); {
	case r < 4:
		east, north = -north, east
	case r < 8:
		east, north = north, -east
	case r == 8:
		east, north = -east, -north
	}
	at := c.to
	if next := (crossing{at.east + east, at.north + north}); next.east*next.east+next.north*next.north > reach*reach {
		east, north = 0, 0
		if max(at.east, -at.east) > max(at.north, -at.north) {
			east = -sign(at.east)
		} else {
			north = -sign(at.north)
		}
	}
	c.from, c.to = at, crossing{at.east + east, at.north + north}
	c.gone = 0
	c.speed = 5 + 10*f.rand.Float64()
	if f.rand.IntN(4) == 0 {
		c.waits = 2 + 10*f.rand.Float64()
	}
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

// drive moves car i on by so many seconds and returns where it is then.
func (f *fleet) drive(i int, seconds float64) dray.Position {
	c := &f.cars[i]
	if c.changes -= seconds; c.changes <= 0 {
		f.change(c)
	}
	for left := seconds; left > 0; {
		if c.waits > 0 {
			step := min(c.waits, left)
			c.waits -= step
			left -= step
			continue
		}
		way := c.length() - c.gone
		if way > c.speed*left {
			c.gone += c.speed * left
			break
		}
		left -= way / c.speed
		f.turn(c)
	}
	return f.position(c)
}

func (c *car) length() float64 {
	x1, y1 := c.from.metres()
	x2, y2 := c.to.metres()
	return math.Hypot(x2-x1, y2-y1)
}

func (f *fleet) position(c *car) dray.Position {
	x1, y1 := c.from.metres()
	x2, y2 := c.to.metres()
	part := c.gone / math.Hypot(x2-x1, y2-y1)
	p := dray.NewPosition(c.driver, f.place.at(x1+(x2-x1)*part, y1+(y2-y1)*part))
	p.Heading = math.Mod(math.Round(math.Atan2(x2-x1, y2-y1)*180/math.Pi)+360, 360)
	p.Speed = math.Round(c.speed*10) / 10
	if c.waits > 0 {
		p.Speed = 0
	}
	p.Accuracy = 5
	p.Attributes = c.attributes
	return p
}

// at is the point so many metres east and north of p's center, to a decimetre.
func (p place) at(east, north float64) dray.Point {
	const degree = dray.EarthRadius * math.Pi / 180
	round := func(f float64) float64 { return math.Round(f*1e6) / 1e6 }
	return dray.Point{
		Latitude:  round(p.center.Latitude + north/degree),
		Longitude: round(p.center.Longitude + east/(degree*math.Cos(p.center.Latitude*math.Pi/180))),
	}
}

// perConnection is how many cars share one WebSocket, well under a server's message rate.
const perConnection = 500

// run reports every car once a second, spread over the second, until ctx ends. sent is
// called for each position.
func (f *fleet) run(ctx context.Context, config client.Config, sent func()) error {
	var clients []*client.Client
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	for len(clients)*perConnection < len(f.cars) {
		c, err := client.Dial(ctx, config)
		if err != nil {
			return err
		}
		clients = append(clients, c)
	}
	const slices = 20 // of a second
	tick := time.NewTicker(time.Second / slices)
	defer tick.Stop()
	for slice := 0; ; slice = (slice + 1) % slices {
		for i := slice; i < len(f.cars); i += slices {
			err := clients[i/perConnection].Report(ctx, f.drive(i, 1))
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("report %s: %w", f.cars[i].driver, err)
			}
			sent()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
