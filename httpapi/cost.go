package httpapi

import (
	"math"

	"dray"
)

const (
	costlyItems = 16     // points, cells, ids, values and lines that cost as much as a message
	costlyArea  = 2500e6 // square metres searched that do
	costlyHits  = 100    // drivers in an answer that do
)

// messageCost is what a message of n bytes takes from the budget of messages.
func messageCost(n int) float64 { return 1 + float64(n/(16<<10)) }

// workCost is what m takes of it besides, for the work that it makes: finding the squares
// of a shape and who is in them costs far more than the bytes it came in.
func workCost(m *message) float64 {
	var items int
	var area, hits float64 // square metres, drivers
	filter := m.filter
	if m.claim != nil {
		filter = m.claim.Filter
		area = math.Pi * m.claim.Radius * m.claim.Radius
		hits = float64(m.claim.Count)
	}
	for _, values := range filter {
		items += len(values)
	}
	if o := m.order; o != nil {
		if items += len(o.items); o.near != nil {
			items += 10 * costlyItems // each location tried is a script's run
			area = math.Pi * o.near.Radius * o.near.Radius
		}
	}
	if s := m.shape; s != nil {
		items += len(s.Cells) + len(s.Drivers)
		if s.Stock != nil {
			items += len(s.Stock.SKUs)
		}
		switch {
		case s.Nearby != nil:
			area = math.Pi * s.Nearby.Radius * s.Nearby.Radius
		case s.Bounds != nil:
			area = boxArea(s.Bounds.South, s.Bounds.West, s.Bounds.North, s.Bounds.East)
		case s.Area != nil:
			for _, ring := range s.Area.Coordinates {
				items += len(ring)
			}
			area = ringArea(s.Area.Coordinates[0])
		}
	}
	if m.typ == typeNearby {
		area = math.Pi * m.radius * m.radius
		hits = float64(m.limit)
	}
	if most := dray.MaxSpan * dray.MaxSpan; !(area <= most) { // NaN of wild numbers too
		area = most
	}
	return float64(items/costlyItems) + math.Floor(max(0, area)/costlyArea) + math.Floor(hits/costlyHits)
}

// boxArea is that of a box in square metres, about; a box west > east crosses the antimeridian.
func boxArea(south, west, north, east float64) float64 {
	const degree = dray.EarthRadius * math.Pi / 180
	if west > east {
		east += 360
	}
	return max(0, north-south) * max(0, east-west) * degree * degree * math.Cos((south+north)/2*math.Pi/180)
}

// ringArea is that of the box around a ring; of one that crosses the antimeridian, more.
func ringArea(ring [][2]float64) float64 {
	if len(ring) == 0 {
		return 0
	}
	low, high := ring[0], ring[0]
	for _, p := range ring {
		for i := range p {
			low[i], high[i] = min(low[i], p[i]), max(high[i], p[i])
		}
	}
	return boxArea(low[1], low[0], high[1], high[0])
}
