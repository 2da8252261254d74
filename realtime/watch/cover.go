package watch

import (
	"sync"

	"github.com/uber/h3-go/v4"

	"dray"
	"dray/realtime/location"
)

// A tile is what there is to know of a bucket's cell.
type tile struct {
	box        box
	center     vector
	radius     float64 // metres, of a circle around all of it
	neighbours []location.Bucket
}

// tiles remembers tiles, for H3 takes microseconds to tell of one.
type tiles struct {
	mu    sync.RWMutex // guards the fields below
	known map[location.Bucket]*tile
}

// maxTiles bounds the memory: a tile is 300 bytes.
const maxTiles = 100_000

func (t *tiles) get(b location.Bucket) *tile {
	t.mu.RLock()
	x := t.known[b]
	t.mu.RUnlock()
	if x != nil {
		return x
	}
	c := h3.Cell(b)
	x = &tile{}
	center, radius := circumcircle(c)
	x.center, x.radius, x.box = vectorOf(center), radius, boxAround(center, radius)
	for _, n := range h3.GridDisk(c, 1) {
		if n != c && n != 0 {
			x.neighbours = append(x.neighbours, location.Bucket(n))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= maxTiles {
		t.known = make(map[location.Bucket]*tile)
	}
	t.known[b] = x
	return x
}

// nextToOnly is a radius in metres at which a circle ends within the neighbours of the
// bucket its center is in: an edge, of which the shortest are 7 km, lies behind them.
const nextToOnly = 5000

// circle is every bucket that may hold a place within radius metres of center, which lies
// in start. Buckets that a circle touches hang together, so it is enough to go from
// neighbour to neighbour.
func (t *tiles) circle(start location.Bucket, center vector, radius float64, dst []location.Bucket) []location.Bucket {
	if radius <= nextToOnly {
		dst = append(dst, start)
		for _, n := range t.get(start).neighbours {
			if x := t.get(n); chord2(x.center, center) <= chord2Of(radius+x.radius) {
				dst = append(dst, n)
			}
		}
		return dst
	}
	return t.spread(start, dst, 0, func(x *tile) bool { return chord2(x.center, center) <= chord2Of(radius+x.radius) })
}

// spread walks from start over the neighbours that touch; at most limit buckets where limit > 0.
func (t *tiles) spread(start location.Bucket, dst []location.Bucket, limit int, touches func(x *tile) bool) []location.Bucket {
	from := len(dst)
	dst = append(dst, start)
	seen := map[location.Bucket]bool{start: true}
	for i := from; i < len(dst); i++ {
		for _, n := range t.get(dst[i]).neighbours {
			if !seen[n] {
				seen[n] = true
				if touches(t.get(n)) {
					dst = append(dst, n)
				}
			}
		}
		if limit > 0 && len(dst)-from > limit {
			return dst
		}
	}
	return dst
}

// maxShapeBuckets bounds what one subscription attaches: 500 km from corner to corner are
// at most 900.
const maxShapeBuckets = 2048

// cover is every bucket that may hold a place of r.
func (t *tiles) cover(r *region) ([]location.Bucket, error) {
	all := make(map[location.Bucket]bool)
	var list []location.Bucket
	for _, b := range r.boxes {
		center := b.center()
		center.Latitude = min(max(center.Latitude, -dray.MaxLatitude), dray.MaxLatitude)
		start := location.BucketAt(center)
		if b.span() <= nextToOnly { // all of it is as near to its middle
			all[start] = true
			for _, n := range t.get(start).neighbours {
				if !all[n] && t.get(n).box.intersects(b) {
					all[n] = true
				}
			}
			continue
		}
		list = t.spread(start, list[:0], maxShapeBuckets, func(x *tile) bool { return x.box.intersects(b) })
		for _, x := range list {
			all[x] = true
		}
		if len(all) > maxShapeBuckets {
			return nil, dray.FieldError(dray.CodeTooLarge, "shape", "covers over %d buckets of 250 km²", maxShapeBuckets)
		}
	}
	list = list[:0]
	for b := range all {
		list = append(list, b)
	}
	return list, nil
}
