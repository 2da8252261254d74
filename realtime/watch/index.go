package watch

import "dray"

// The index finds the subscriptions whose boxes hold a place. A box is listed in every
// square it touches of the finest level on which these are few, so a small shape is found by
// few drivers and a large one costs no more to list. A place is looked up once on each level
// that is in use.
type index struct {
	levels [indexLevels]map[uint64][]*listing // row<<32 | column -> who is listed there
	size   int                                // entries of all squares
	dead   int                                // of them, those of listings that are gone
}

const (
	indexStep   = 0.005 // degrees, a square of level 0
	indexLevels = 17    // the last has squares of 327 degrees
	indexCells  = 64    // squares of a region, over all its boxes
	indexLeast  = 4     // squares of a box
)

// A listing is where the boxes of one region are listed for one subscription. It is made
// without a lock. Its entries are taken out of the squares as these are visited, or all at
// once when half of all are dead: so that the end of a subscription costs next to nothing.
type listing struct {
	sub     *Subscription
	squares [][2]uint64 // level, key
	gone    bool
}

func indexKey(row, col int64) uint64 { return uint64(row)<<32 | uint64(col) }

func newListing(s *Subscription, boxes []box) *listing {
	l := &listing{sub: s}
	most := int64(indexCells)
	if len(boxes) > 1 {
		most = max(indexCells/int64(len(boxes)), indexLeast)
	}
	seen := make(map[[2]uint64]bool)
	for _, b := range boxes {
		l.add(b, most, seen)
	}
	return l
}

// add lists b on the finest level on which it touches at most so many squares.
func (l *listing) add(b box, most int64, seen map[[2]uint64]bool) {
	for level := 0; ; level++ {
		step := indexStep * float64(int64(1)<<level)
		columns := columnsOf(b, step)
		row0, row1 := int64((b.south+90)/step), int64((b.north+90)/step)
		wide := columns[0][1] - columns[0][0] + 1 + columns[1][1] - columns[1][0] + 1
		if (row1-row0+1)*wide > most && level < indexLevels-1 {
			continue
		}
		for row := row0; row <= row1; row++ {
			for _, r := range columns {
				for col := r[0]; col <= r[1]; col++ {
					if square := [2]uint64{uint64(level), indexKey(row, col)}; !seen[square] {
						seen[square] = true
						l.squares = append(l.squares, square)
					}
				}
			}
		}
		return
	}
}

func (x *index) add(l *listing) {
	for _, s := range l.squares {
		m := x.levels[s[0]]
		if m == nil {
			m = make(map[uint64][]*listing)
			x.levels[s[0]] = m
		}
		m[s[1]] = append(m[s[1]], l)
	}
	x.size += len(l.squares)
}

func (x *index) remove(l *listing) {
	l.gone = true
	if x.dead += len(l.squares); x.dead > 1024 && x.dead > x.size/2 {
		for level, m := range x.levels {
			for key := range m {
				x.sweep(level, key)
			}
		}
	}
}

// sweep takes the dead out of one square.
func (x *index) sweep(level int, key uint64) {
	m := x.levels[level]
	list := m[key]
	kept := list[:0]
	for _, l := range list {
		if !l.gone {
			kept = append(kept, l)
		}
	}
	clear(list[len(kept):])
	x.size -= len(list) - len(kept)
	x.dead -= len(list) - len(kept)
	if m[key] = kept; len(kept) > 0 {
		return
	}
	if delete(m, key); len(m) == 0 {
		x.levels[level] = nil
	}
}

// at calls visit for every subscription that may hold p; for one with several boxes
// perhaps more than once.
func (x *index) at(p dray.Point, visit func(s *Subscription)) {
	for level, m := range x.levels {
		if m == nil {
			continue
		}
		step := indexStep * float64(int64(1)<<level)
		key := indexKey(int64((p.Latitude+90)/step), columnOf(p.Longitude, step))
		dead := false
		for _, l := range m[key] {
			if l.gone {
				dead = true
			} else {
				visit(l.sub)
			}
		}
		if dead {
			x.sweep(level, key)
		}
	}
}
