package location

import (
	"math"
	"sync/atomic"

	"github.com/uber/h3-go/v4"

	"dray"
)

// BucketAt is the bucket of a valid place.
func BucketAt(at dray.Point) Bucket {
	return Bucket(h3.LatLngToCell(h3.LatLng{Lat: at.Latitude, Lng: at.Longitude}, Resolution))
}

// buckets answers BucketAt without asking H3, which costs a microsecond, for most places: it
// remembers squares of 0.002 degrees (220 m north to south) whose four corners lie in one
// cell, and so all of the square, for cells are convex. One in fifteen squares lies on a
// border and asks H3 each time. The answer is a function of the place alone, so all nodes
// agree.
//
// The memory is a direct-mapped table: a slot holds one square and its cell, and a newer
// square replaces it. Safe for concurrent use.
type buckets struct {
	slots [1 << slotBits]atomic.Uint64 // square+1 (34 bits) << cellBits | base cell and digits, 0 for a border
}

const (
	slotBits = 17
	cellBits = 22                                                        // 7 of the base cell, 3 for each of 5 digits
	cellLow  = 52 - 7 - 3*Resolution                                     // where those bits lie in an H3 index
	cellRest = uint64(1)<<59 | uint64(Resolution)<<52 | (1<<cellLow - 1) // mode 1, resolution, unused digits 7
	squares  = 500                                                       // a degree
)

func (t *buckets) at(p dray.Point) Bucket {
	row := uint64((p.Latitude + 90) * squares)
	col := uint64((p.Longitude + 180) * squares)
	square := row*(360*squares+1) + col + 1
	slot := &t.slots[mix(square)>>(64-slotBits)]
	held := slot.Load()
	if held>>cellBits != square {
		held = square<<cellBits | commonCell(row, col)
		slot.Store(held)
	}
	if cell := held & (1<<cellBits - 1); cell != 0 {
		return Bucket(cell<<cellLow | cellRest)
	}
	return BucketAt(p)
}

// commonCell is the base cell and digits of the one cell that holds all corners of a
// square; 0 where there is none.
func commonCell(row, col uint64) uint64 {
	var cell Bucket
	for i := range uint64(4) {
		b := BucketAt(dray.Point{
			Latitude:  math.Min(float64(row+i/2)/squares-90, 90),
			Longitude: math.Min(float64(col+i%2)/squares-180, 180),
		})
		if i > 0 && b != cell {
			return 0
		}
		cell = b
	}
	return uint64(cell) &^ cellRest >> cellLow
}
