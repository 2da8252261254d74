package watch

import (
	"math/rand/v2"
	"slices"
	"testing"

	"dray"
	"dray/realtime/location"
)

// The cover of a circle holds the bucket of every place in it, and the quick way finds the
// same buckets as the walk.
func TestCircleIsCovered(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var x tiles
	for range 300 {
		c := dray.Point{Latitude: rnd.Float64()*170 - 85, Longitude: rnd.Float64()*360 - 180}
		radius := 10 + rnd.Float64()*nextToOnly*2
		if rnd.IntN(4) == 0 {
			radius = nextToOnly
		}
		start := location.BucketAt(c)
		got := x.circle(start, vectorOf(c), radius, nil)
		walk := x.spread(start, nil, 0, func(n *tile) bool { return chord2(n.center, vectorOf(c)) <= chord2Of(radius+n.radius) })
		slices.Sort(got)
		slices.Sort(walk)
		if !slices.Equal(got, walk) {
			t.Errorf("circle(%v, %v) = %v, by walking %v", c, radius, got, walk)
		}
		edge := boxAround(c, radius)
		for range 50 {
			p := dray.Point{Latitude: edge.south + rnd.Float64()*(edge.north-edge.south), Longitude: wrap(edge.west + rnd.Float64()*edge.width)}
			if dray.Distance(c, p) <= radius && !slices.Contains(got, location.BucketAt(p)) {
				t.Errorf("circle(%v, %v) lacks the bucket of %v", c, radius, p)
			}
		}
	}
}

// A circle's box touches the circle, and holds all of it.
func TestBoxes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		c := dray.Point{Latitude: rnd.Float64()*179 - 89.5, Longitude: rnd.Float64()*360 - 180}
		radius := rnd.Float64() * 50_000
		b := boxAround(c, radius)
		p := dray.Point{Latitude: c.Latitude + (rnd.Float64()-0.5)*1.2, Longitude: wrap(c.Longitude + (rnd.Float64()-0.5)*360)}
		if rnd.IntN(2) == 0 {
			p.Longitude = wrap(c.Longitude + (rnd.Float64()-0.5)*1.5)
		}
		if p.Latitude < -90 || p.Latitude > 90 {
			continue
		}
		if dray.Distance(c, p) < radius && !b.contains(p) {
			t.Errorf("boxAround(%v, %v) = %+v lacks %v", c, radius, b, p)
		}
		if b.contains(p) && !b.intersects(boxAround(p, 1)) {
			t.Errorf("%+v does not intersect the box around %v, which it contains", b, p)
		}
		inScan := false
		g := newGrid()
		g.put(&driver{record: &record{point: p, vector: vectorOf(p)}})
		g.scan(b, func(*spot) { inScan = true })
		if b.contains(p) && !inScan {
			t.Errorf("scan(%+v) lacks %v", b, p)
		}
		var x index
		l := newListing(&Subscription{}, []box{b})
		x.add(l)
		found := false
		x.at(p, func(*Subscription) { found = true })
		if b.contains(p) && !found {
			t.Errorf("the index lacks %+v at %v", b, p)
		}
		x.remove(l)
		x.at(p, func(*Subscription) { t.Errorf("%+v is still listed", b) })
	}
}
