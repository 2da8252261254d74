package watch

import (
	"math"

	"dray"
)

const (
	rad           = math.Pi / 180
	metresADegree = rad * dray.EarthRadius
)

// A vector is a place as a point of the unit sphere. The straight line between two vectors
// (their chord) grows with the distance, takes a nanosecond, and knows neither poles nor the
// antimeridian.
type vector [3]float64

func vectorOf(p dray.Point) vector {
	sinLat, cosLat := math.Sincos(p.Latitude * rad)
	sinLng, cosLng := math.Sincos(p.Longitude * rad)
	return vector{cosLat * cosLng, cosLat * sinLng, sinLat}
}

// chord2 is the square of the chord between a and b.
func chord2(a, b vector) float64 {
	x, y, z := a[0]-b[0], a[1]-b[1], a[2]-b[2]
	return x*x + y*y + z*z
}

// chord2Of is the square of the chord that spans metres along the sphere.
func chord2Of(metres float64) float64 {
	c := 2 * math.Sin(math.Min(metres/(2*dray.EarthRadius), math.Pi/2))
	return c * c
}

// metresOf is the inverse of chord2Of.
func metresOf(chord2 float64) float64 {
	return 2 * dray.EarthRadius * math.Asin(math.Min(math.Sqrt(chord2)/2, 1))
}

// A box is a range of latitudes, and of longitudes from west to west+width.
type box struct {
	south, north float64
	west         float64 // in [-180, 180)
	width        float64 // in [0, 360]
}

func boxOf(south, west, north, east float64) box {
	b := box{south: south, north: north, west: wrap(west), width: east - west}
	if b.width < 0 {
		b.width += 360
	}
	if b.width >= 360 {
		b.west, b.width = -180, 360
	}
	return b
}

// boxAround is the box of all places within radius metres of c.
func boxAround(c dray.Point, radius float64) box {
	d := radius / dray.EarthRadius
	b := box{south: c.Latitude - d/rad, north: c.Latitude + d/rad, west: -180, width: 360}
	// the widest parallel is where the circle touches a meridian: sin(dlng) = sin(d) / cos(lat)
	if s := math.Sin(d) / math.Cos(c.Latitude*rad); b.north < 90 && b.south > -90 && s < 1 {
		w := math.Asin(s)/rad + 1e-9
		b.west, b.width = wrap(c.Longitude-w), 2*w
	}
	b.south, b.north = math.Max(b.south-1e-9, -90), math.Min(b.north+1e-9, 90)
	return b
}

// wrap brings a longitude into [-180, 180).
func wrap(lng float64) float64 {
	if lng >= -180 && lng < 180 {
		return lng
	}
	if lng = math.Mod(lng+180, 360); lng < 0 {
		lng += 360
	}
	return lng - 180
}

func (b box) contains(p dray.Point) bool {
	if p.Latitude < b.south || p.Latitude > b.north {
		return false
	}
	east := p.Longitude - b.west
	if east < 0 {
		east += 360
	}
	return east <= b.width || b.width >= 360 || east == 360
}

func (b box) intersects(o box) bool {
	if b.south > o.north || o.south > b.north {
		return false
	}
	if b.width+o.width >= 360 {
		return true
	}
	d := o.west - b.west
	if d < 0 {
		d += 360
	}
	return d <= b.width || d+o.width >= 360
}

func (b box) center() dray.Point {
	return dray.Point{Latitude: (b.south + b.north) / 2, Longitude: wrap(b.west + b.width/2)}
}

// span is how far b reaches from corner to corner, in metres, along its widest parallel.
func (b box) span() float64 {
	lat := math.Min(math.Abs(b.south), math.Abs(b.north))
	if b.south <= 0 && b.north >= 0 {
		lat = 0
	}
	return math.Hypot((b.north-b.south)*metresADegree, b.width*metresADegree*math.Cos(lat*rad))
}
