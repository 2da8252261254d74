package watch

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/uber/h3-go/v4"

	"dray"
)

// A region is a shape made ready: which places are inside, and boxes that hold them all.
type region struct {
	contains func(p dray.Point, v vector) bool
	boxes    []box
	ids      []string // of a drivers shape: no place, contains and boxes are nil
	costly   bool     // contains takes a microsecond or more
}

// compile checks a shape and makes it ready. It fails with dray.ErrBadRequest or
// dray.ErrTooLarge, naming the member.
func compile(s dray.Shape) (*region, error) {
	set := 0
	for _, is := range []bool{s.Nearby != nil, s.Bounds != nil, s.Area != nil, s.Cells != nil, s.Drivers != nil, s.Stock != nil} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return nil, dray.FieldError(dray.CodeBadRequest, "shape", "exactly one of nearby, bounds, area, cells, drivers and stock")
	case s.Nearby != nil:
		return circle(*s.Nearby)
	case s.Bounds != nil:
		return rectangle(*s.Bounds)
	case s.Area != nil:
		return polygon(*s.Area)
	case s.Cells != nil:
		return cells(s.Cells)
	case s.Drivers != nil:
		return ids(s.Drivers)
	}
	return nil, dray.FieldError(dray.CodeBadRequest, "stock", "is not served here")
}

func bad(field, format string, args ...any) error {
	return dray.FieldError(dray.CodeBadRequest, field, format, args...)
}

func circle(c dray.Circle) (*region, error) {
	if !c.Center().Valid() {
		return nil, bad("nearby", "latitude is within ±%v, longitude within ±180", dray.MaxLatitude)
	}
	if !(c.Radius > 0 && c.Radius <= dray.MaxRadius) {
		return nil, bad("nearby.radius", "must be over 0 and at most %v metres", dray.MaxRadius)
	}
	center, reach := vectorOf(c.Center()), chord2Of(c.Radius)
	return &region{
		contains: func(_ dray.Point, v vector) bool { return chord2(v, center) <= reach },
		boxes:    []box{boxAround(c.Center(), c.Radius)},
	}, nil
}

func rectangle(b dray.Bounds) (*region, error) {
	if !(math.Abs(b.South) <= 90 && math.Abs(b.North) <= 90 && math.Abs(b.West) <= 180 && math.Abs(b.East) <= 180) {
		return nil, bad("bounds", "latitudes are within ±90, longitudes within ±180")
	}
	if b.South > b.North {
		return nil, bad("bounds", "south is over north")
	}
	x := boxOf(b.South, b.West, b.North, b.East)
	if x.span() > dray.MaxSpan {
		return nil, tooFar("bounds")
	}
	return &region{contains: func(p dray.Point, _ vector) bool { return x.contains(p) }, boxes: []box{x}}, nil
}

func tooFar(field string) error {
	return dray.FieldError(dray.CodeTooLarge, field, "reaches over %v km from corner to corner", dray.MaxSpan/1000)
}

// A ring is a closed line of points; longitudes are unwrapped, so that each edge is the
// short way round, and relative to the first point of the polygon.
type ring [][2]float64 // longitude, latitude

func polygon(g dray.Polygon) (*region, error) {
	if g.Type != "Polygon" || len(g.Coordinates) == 0 {
		return nil, bad("area", "must be a GeoJSON Polygon")
	}
	points := 0
	for _, r := range g.Coordinates {
		points += len(r)
	}
	if points > dray.MaxPolygonPoints {
		return nil, dray.FieldError(dray.CodeTooLarge, "area", "at most %d points", dray.MaxPolygonPoints)
	}
	first := ring(nil)
	var rings []ring
	for _, r := range g.Coordinates {
		unwrapped, err := unwrap(r, first)
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = unwrapped
		}
		rings = append(rings, unwrapped)
	}
	if err := simple(rings); err != nil {
		return nil, err
	}
	if len(edgesOf(rings)) < 3 {
		return nil, bad("area", "has no surface")
	}
	x := box{south: 90, north: -90}
	west, east := math.Inf(1), math.Inf(-1)
	for _, p := range first {
		x.south, x.north = math.Min(x.south, p[1]), math.Max(x.north, p[1])
		west, east = math.Min(west, p[0]), math.Max(east, p[0])
	}
	x = boxOf(x.south, west, x.north, east)
	if x.span() > dray.MaxSpan {
		return nil, tooFar("area")
	}
	bands := newBands(rings, x.south, x.north)
	return &region{boxes: []box{x}, contains: func(p dray.Point, _ vector) bool {
		if !x.contains(p) {
			return false
		}
		lng := p.Longitude
		for lng < west {
			lng += 360
		}
		for lng > east {
			lng -= 360
		}
		inside := false // even-odd over all rings: holes are out
		for _, e := range bands.at(p.Latitude) {
			if (e.a[1] > p.Latitude) != (e.b[1] > p.Latitude) &&
				lng < e.a[0]+(e.b[0]-e.a[0])*(p.Latitude-e.a[1])/(e.b[1]-e.a[1]) {
				inside = !inside
			}
		}
		return inside
	}}, nil
}

// An edge is a side of a polygon: longitude, latitude of its ends.
type edge struct{ a, b [2]float64 }

func (e edge) south() float64 { return math.Min(e.a[1], e.b[1]) }
func (e edge) north() float64 { return math.Max(e.a[1], e.b[1]) }

func edgesOf(rings []ring) (edges []edge) {
	for _, r := range rings {
		for i := 1; i < len(r); i++ {
			if r[i] != r[i-1] {
				edges = append(edges, edge{r[i-1], r[i]})
			}
		}
	}
	return edges
}

// bands lists the edges of a polygon by latitude, so that a place is held against few.
type bands struct {
	south, step float64
	edges       [][]edge
}

func newBands(rings []ring, south, north float64) *bands {
	edges := edgesOf(rings)
	x := &bands{south: south, step: (north - south) / float64(len(edges)), edges: make([][]edge, len(edges))}
	for _, e := range edges {
		for i := x.band(e.south()); i <= x.band(e.north()); i++ {
			x.edges[i] = append(x.edges[i], e)
		}
	}
	return x
}

func (x *bands) band(lat float64) int {
	return min(max(int((lat-x.south)/x.step), 0), len(x.edges)-1)
}

func (x *bands) at(lat float64) []edge { return x.edges[x.band(lat)] }

// unwrap checks a ring and takes out the jump at the antimeridian, if there is one.
func unwrap(points [][2]float64, first ring) (ring, error) {
	if len(points) < 4 {
		return nil, bad("area", "a ring has at least 4 points")
	}
	if points[0] != points[len(points)-1] {
		return nil, bad("area", "a ring ends where it began")
	}
	r := make(ring, len(points))
	for i, p := range points {
		if !(math.Abs(p[0]) <= 180 && math.Abs(p[1]) <= 90) {
			return nil, bad("area", "points are [longitude, latitude], within ±180 and ±90")
		}
		last := p[0]
		if i > 0 {
			last = r[i-1][0]
		} else if first != nil {
			last = first[0][0]
		}
		r[i] = [2]float64{last + math.Remainder(p[0]-last, 360), p[1]}
	}
	if math.Abs(r[0][0]-r[len(r)-1][0]) > 1 {
		return nil, dray.FieldError(dray.CodeTooLarge, "area", "goes round a pole")
	}
	return r, nil
}

// simple refuses rings whose edges cross. Edges are compared with those that begin, from
// the south, before they end: few, but for shapes made to be slow, of at most 1000 edges.
func simple(rings []ring) error {
	edges := edgesOf(rings)
	slices.SortFunc(edges, func(e, f edge) int { return cmp.Compare(e.south(), f.south()) })
	side := func(a, b, c [2]float64) float64 { return (b[0]-a[0])*(c[1]-a[1]) - (b[1]-a[1])*(c[0]-a[0]) }
	for i, e := range edges {
		for _, f := range edges[i+1:] {
			if f.south() > e.north() {
				break
			}
			if side(e.a, e.b, f.a)*side(e.a, e.b, f.b) < 0 && side(f.a, f.b, e.a)*side(f.a, f.b, e.b) < 0 {
				return bad("area", "edges cross")
			}
		}
	}
	return nil
}

func cells(texts []string) (*region, error) {
	if len(texts) == 0 {
		return nil, bad("cells", "at least one")
	}
	if len(texts) > dray.MaxCells {
		return nil, dray.FieldError(dray.CodeTooLarge, "cells", "at most %d", dray.MaxCells)
	}
	wanted := make(map[h3.Cell]bool, len(texts))
	var resolutions []int
	var has [16]bool
	r := &region{costly: true}
	var within [16][]box // by resolution
	for _, text := range texts {
		n, err := strconv.ParseUint(text, 16, 64)
		c := h3.Cell(n)
		if err != nil || len(text) > 16 || n>>63 != 0 || !c.IsValid() {
			return nil, bad("cells", "%.20q is no H3 index", text)
		}
		if wanted[c] {
			continue
		}
		wanted[c] = true
		if !has[c.Resolution()] {
			has[c.Resolution()] = true
			resolutions = append(resolutions, c.Resolution())
		}
		center, reach := circumcircle(c)
		x := boxAround(center, reach)
		r.boxes = append(r.boxes, x)
		within[c.Resolution()] = append(within[c.Resolution()], x)
	}
	r.contains = func(p dray.Point, _ vector) bool {
		for _, res := range resolutions {
			near := slices.ContainsFunc(within[res], func(b box) bool { return b.contains(p) }) // cheaper than H3
			if near && wanted[h3.LatLngToCell(h3.LatLng{Lat: p.Latitude, Lng: p.Longitude}, res)] {
				return true
			}
		}
		return false
	}
	return r, nil
}

// circumcircle is a circle around all of a cell. Edges are nearly great circles, so the
// farthest point is a corner; the margin is for the "nearly".
func circumcircle(c h3.Cell) (center dray.Point, radius float64) {
	mid := c.LatLng()
	center = dray.Point{Latitude: mid.Lat, Longitude: mid.Lng}
	for _, corner := range c.Boundary() {
		radius = math.Max(radius, dray.Distance(center, dray.Point{Latitude: corner.Lat, Longitude: corner.Lng}))
	}
	return center, radius * 1.02
}

func ids(list []string) (*region, error) {
	if len(list) == 0 {
		return nil, bad("drivers", "at least one")
	}
	if len(list) > dray.MaxDrivers {
		return nil, dray.FieldError(dray.CodeTooLarge, "drivers", "at most %d", dray.MaxDrivers)
	}
	for _, id := range list {
		if !dray.ValidID(id) {
			return nil, bad("drivers", "ids are 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxID)
		}
	}
	return &region{ids: list}, nil
}
