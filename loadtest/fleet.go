package loadtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"

	"dray"
)

// A place is where a driver was, in millionths of a degree, so that what comes back can be
// compared bit by bit.
type place struct {
	at       int64 // its timestamp, ms
	lat, lon int32 // millionths of a degree
}

func (p place) point() dray.Point {
	return dray.Point{Latitude: float64(p.lat) / 1e6, Longitude: float64(p.lon) / 1e6}
}

// micro is f in millionths.
func micro(f float64) int32 { return int32(math.Round(f * 1e6)) }

// A fleet is simulated drivers in a square, the same for the same seed. They drive straight
// for up to a minute, at 3 to 20 m/s, and turn back where the square ends. Each driver is one
// goroutine's at a time.
type fleet struct {
	prefix string // of their ids
	ids    []string
	cars   []car
	acked  []place // the newest that the server acknowledged, by driver

	lat, lon         float64 // middle of the square, in millionths
	halfLat, halfLon float64 // of its sides
	metre            float64 // in millionths of a degree of latitude
}

// A car is a driver of a fleet.
type car struct {
	place
	y, x   float64 // exact place, millionths
	vy, vx float64 // millionths a second
	turn   int64   // when it will, ms
	seed   uint64
}

// center is the middle of every fleet.
var center = dray.Point{Latitude: 30.2672, Longitude: -97.7431}

func newFleet(p *Plan) *fleet {
	const degree = dray.EarthRadius * math.Pi / 180 // metres
	f := &fleet{
		prefix: fmt.Sprintf("lt%04x-", rand.Uint32()&0xffff), // not of the seed: two runs on one server must not meet
		ids:    make([]string, p.Drivers),
		cars:   make([]car, p.Drivers),
		acked:  make([]place, p.Drivers),
		lat:    center.Latitude * 1e6, lon: center.Longitude * 1e6,
		metre: 1e6 / degree,
	}
	f.halfLat = p.Spread / 2 * f.metre
	f.halfLon = f.halfLat / f.shrink()
	random := rand.New(rand.NewPCG(p.Seed, 1))
	for i := range f.cars {
		c := &f.cars[i]
		f.ids[i] = f.prefix + fmt.Sprintf("%06d", i)
		c.seed = random.Uint64()
		c.y = f.lat + (2*random.Float64()-1)*f.halfLat
		c.x = f.lon + (2*random.Float64()-1)*f.halfLon
		f.steer(c)
	}
	return f
}

// shrink is how much shorter a degree of longitude is than one of latitude.
func (f *fleet) shrink() float64 { return math.Cos(center.Latitude * math.Pi / 180) }

// next is the next number in [0, 1) of a car's own (splitmix64).
func (c *car) next() float64 {
	c.seed += 0x9e3779b97f4a7c15
	z := c.seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return float64((z^z>>31)>>11) / (1 << 53)
}

// steer gives a car a new course.
func (f *fleet) steer(c *car) {
	sin, cos := math.Sincos(2 * math.Pi * c.next())
	speed := (3 + 17*c.next()) * f.metre
	c.vy, c.vx = speed*cos, speed*sin/f.shrink()
	c.turn = c.at + 5000 + int64(55000*c.next())
}

// move drives driver i on until at (ms), or a millisecond past where it was, and returns its place.
func (f *fleet) move(i int, at int64) place {
	c := &f.cars[i]
	at = max(at, c.at+1)
	if c.at != 0 {
		seconds := float64(at-c.at) / 1000
		c.y += c.vy * seconds
		c.x += c.vx * seconds
	}
	if c.at = at; at >= c.turn {
		f.steer(c)
	}
	if c.y < f.lat-f.halfLat && c.vy < 0 || c.y > f.lat+f.halfLat && c.vy > 0 {
		c.vy = -c.vy
	}
	if c.x < f.lon-f.halfLon && c.vx < 0 || c.x > f.lon+f.halfLon && c.vx > 0 {
		c.vx = -c.vx
	}
	c.lat, c.lon = int32(math.Round(c.y)), int32(math.Round(c.x))
	return c.place
}

// index is the driver of an id; -1 when it is none of this fleet.
func (f *fleet) index(id []byte) int {
	if len(id) <= len(f.prefix) || string(id[:len(f.prefix)]) != f.prefix {
		return -1
	}
	n := 0
	for _, b := range id[len(f.prefix):] {
		if b < '0' || b > '9' || n > len(f.ids) {
			return -1
		}
		n = 10*n + int(b-'0')
	}
	if n >= len(f.ids) {
		return -1
	}
	return n
}

// appendPosition appends the members of a position, without braces.
func (f *fleet) appendPosition(b []byte, i int, p place) []byte {
	b = append(b, `"driver":"`...)
	b = append(b, f.ids[i]...)
	b = append(b, `","latitude":`...)
	b = appendMicro(b, p.lat)
	b = append(b, `,"longitude":`...)
	b = appendMicro(b, p.lon)
	b = append(b, `,"timestamp":`...)
	return strconv.AppendInt(b, p.at, 10)
}

// appendMicro appends n millionths as a number with six decimals.
func appendMicro(b []byte, n int32) []byte {
	if n < 0 {
		b, n = append(b, '-'), -n
	}
	b = strconv.AppendInt(b, int64(n/1e6), 10)
	b = append(b, '.')
	n %= 1e6
	for unit := int32(1e5); unit > 0; unit /= 10 {
		b = append(b, byte('0'+n/unit%10))
	}
	return b
}

// at is a place of the square: 0, 0 is its south-west corner, and 1, 1 the other.
func (f *fleet) at(north, east float64) dray.Point {
	return dray.Point{
		Latitude:  math.Round(f.lat+(2*north-1)*f.halfLat) / 1e6,
		Longitude: math.Round(f.lon+(2*east-1)*f.halfLon) / 1e6,
	}
}

// somewhere is a random place of the square.
func (f *fleet) somewhere(random *rand.Rand) dray.Point {
	return f.at(random.Float64(), random.Float64())
}
