package watch

import "dray"

// The index finds the subscriptions whose boxes hold a place. A box is listed in every
// square it touches of the finest level on which these are at most indexCells, so a small
// shape is found by few drivers and a large one costs no more to list. A place is looked up
// once on each level that is in use.
const (
	indexStep   = 0.005 // degrees, a square of level 0
	indexLevels = 17    // the last has squares of 327 degrees
	indexCells  = 64
)

type index struct {
	levels [indexLevels]map[uint64][]*Subscription // row<<32 | column -> subscriptions
}

// A listing is where one box is listed.
type listing struct {
	level int
	keys  []uint64
}

func indexKey(row, col int64) uint64 { return uint64(row)<<32 | uint64(col) }

// squaresOf lists the squares of b on the level that suits it.
func squaresOf(b box) listing {
	for level := 0; ; level++ {
		step := indexStep * float64(int64(1)<<level)
		columns := columnsOf(b, step)
		row0, row1 := int64((b.south+90)/step), int64((b.north+90)/step)
		wide := columns[0][1] - columns[0][0] + 1 + columns[1][1] - columns[1][0] + 1
		if (row1-row0+1)*wide > indexCells && level < indexLevels-1 {
			continue
		}
		l := listing{level: level}
		for row := row0; row <= row1; row++ {
			for _, r := range columns {
				for col := r[0]; col <= r[1]; col++ {
					l.keys = append(l.keys, indexKey(row, col))
				}
			}
		}
		return l
	}
}

func (x *index) add(s *Subscription, boxes []box) {
	seen := make(map[[2]uint64]bool)
	for _, b := range boxes {
		l := squaresOf(b)
		m := x.levels[l.level]
		if m == nil {
			m = make(map[uint64][]*Subscription)
			x.levels[l.level] = m
		}
		for _, key := range l.keys {
			if at := [2]uint64{uint64(l.level), key}; !seen[at] {
				seen[at] = true
				m[key] = append(m[key], s)
			}
		}
	}
}

func (x *index) remove(s *Subscription, boxes []box) {
	for _, b := range boxes {
		l := squaresOf(b)
		m := x.levels[l.level]
		for _, key := range l.keys {
			list := m[key]
			for i := range list {
				if list[i] == s {
					list[i] = list[len(list)-1]
					list[len(list)-1] = nil
					m[key] = list[:len(list)-1]
					break
				}
			}
			if len(m[key]) == 0 {
				delete(m, key)
			}
		}
		if len(m) == 0 {
			x.levels[l.level] = nil
		}
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
		for _, s := range m[indexKey(int64((p.Latitude+90)/step), columnOf(p.Longitude, step))] {
			visit(s)
		}
	}
}
