package watch

import (
	"math"

	"dray"
)

// The grid finds drivers by place: squares of gridStep degrees, kept in blocks of 16 by 16
// so that empty land costs one look for 9 km.
const (
	gridStep  = 0.005 // degrees: 556 m from south to north
	blockSide = 16
)

type cellRef struct {
	block *block
	cell  int
	slot  int // index in the cell
}

type block struct {
	key   [2]int32 // row, column
	count int
	cells [blockSide * blockSide][]spot
}

// A spot is a driver with its place and record beside it: a scan that passes over thousands
// must not fetch each from memory of its own.
type spot struct {
	at     vector
	driver *driver
	record *record
}

type grid struct {
	blocks map[[2]int32]*block
}

func newGrid() grid { return grid{blocks: make(map[[2]int32]*block)} }

func gridRow(lat float64) int32 { return int32(math.Floor((lat + 90) / gridStep)) }

// columnOf is the column of a longitude in [-180, 180].
func columnOf(lng, step float64) int64 { return int64((wrap(lng) + 180) / step) }

// columnsOf is the columns that b touches: one range, and a second one where it crosses the
// antimeridian (from > to where there is none).
func columnsOf(b box, step float64) (ranges [2][2]int64) {
	last := int64(math.Ceil(360/step)) - 1
	west, east := columnOf(b.west, step), b.west+b.width+1e-9 // the sum may be rounded down
	none := [2]int64{0, -1}
	switch {
	case b.width >= 360:
		return [2][2]int64{{0, last}, none}
	case east < 180:
		return [2][2]int64{{west, columnOf(east, step)}, none}
	case columnOf(east-360, step) >= west:
		return [2][2]int64{{0, last}, none}
	}
	return [2][2]int64{{west, last}, {0, columnOf(east-360, step)}}
}

// put places d where its record says, moving it from where it was.
func (g *grid) put(d *driver) {
	p, x := d.record.point, spot{d.record.vector, d, d.record}
	row, col := gridRow(p.Latitude), int32(columnOf(p.Longitude, gridStep))
	key := [2]int32{row / blockSide, col / blockSide}
	cell := int(row%blockSide*blockSide + col%blockSide)
	at := d.at
	if at.block != nil {
		if at.block.key == key && at.cell == cell {
			at.block.cells[cell][at.slot] = x
			return
		}
		g.remove(d)
	}
	b := g.blocks[key]
	if b == nil {
		b = &block{key: key}
		g.blocks[key] = b
	}
	d.at = cellRef{b, cell, len(b.cells[cell])}
	b.cells[cell] = append(b.cells[cell], x)
	b.count++
}

func (g *grid) remove(d *driver) {
	b := d.at.block
	if b == nil {
		return
	}
	list := b.cells[d.at.cell]
	last := len(list) - 1
	list[d.at.slot] = list[last]
	list[d.at.slot].driver.at.slot = d.at.slot
	list[last] = spot{}
	b.cells[d.at.cell] = list[:last]
	d.at = cellRef{}
	if b.count--; b.count == 0 {
		delete(g.blocks, b.key)
	}
}

// scan calls visit for every driver in the squares that b touches, each once.
func (g *grid) scan(b box, visit func(x *spot)) {
	for _, columns := range columnsOf(b, gridStep) {
		if columns[0] <= columns[1] {
			g.scanRows(gridRow(b.south), gridRow(b.north), int32(columns[0]), int32(columns[1]), visit)
		}
	}
}

func (g *grid) scanRows(south, north, west, east int32, visit func(x *spot)) {
	for row := south / blockSide; row <= north/blockSide; row++ {
		for col := west / blockSide; col <= east/blockSide; col++ {
			b := g.blocks[[2]int32{row, col}]
			if b == nil {
				continue
			}
			r0, r1 := max(south-row*blockSide, 0), min(north-row*blockSide, blockSide-1)
			c0, c1 := max(west-col*blockSide, 0), min(east-col*blockSide, blockSide-1)
			for r := r0; r <= r1; r++ {
				for _, cell := range b.cells[r*blockSide+c0 : r*blockSide+c1+1] {
					for i := range cell {
						visit(&cell[i])
					}
				}
			}
		}
	}
}

// density is how many drivers there are to a square metre about p, roughly: those of its
// block over the block's area.
func (g *grid) density(p dray.Point) float64 {
	b := g.blocks[[2]int32{gridRow(p.Latitude) / blockSide, int32(columnOf(p.Longitude, gridStep)) / blockSide}]
	if b == nil {
		return 0
	}
	side := blockSide * gridStep * metresADegree
	return float64(b.count) / (side * side * math.Cos(p.Latitude*rad))
}
