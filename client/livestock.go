package client

import (
	"maps"
	"slices"

	"dray"
)

// Stock is the stock that is watched as it is now, in no order; nil where drivers are. While
// there is no connection it is the last that was known.
func (s *Subscription) Stock() []dray.Stock {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.rows))
}

// applyStock brings a snapshot or delta of stock into the rows.
func (s *Subscription) applyStock(f *frame) {
	if f.Type == "snapshot" {
		s.snapshot = true
		clear(s.rows)
		clear(s.dirty)
	}
	for _, l := range f.Left {
		s.removeRow(l.SKU)
	}
	for _, row := range f.rows {
		if _, told := s.dirty[row.SKU]; !s.snapshot && !told {
			_, had := s.rows[row.SKU]
			s.dirty[row.SKU] = mark{had: had}
		}
		s.rows[row.SKU] = row
	}
	for _, e := range f.Events {
		s.events[e.SKU] = e
	}
}

func (s *Subscription) removeRow(sku string) {
	_, has := s.rows[sku]
	delete(s.rows, sku)
	delete(s.events, sku)
	m, told := s.dirty[sku]
	switch {
	case !has || s.snapshot:
	case told && !m.had:
		delete(s.dirty, sku) // came and went unseen
	default:
		s.dirty[sku] = mark{had: true}
	}
}

// takeRows tells what became of the rows that Next has not told of.
func (s *Subscription) takeRows(e *Event) {
	for sku := range s.dirty {
		if row, has := s.rows[sku]; has {
			e.Stock = append(e.Stock, row)
		} else {
			e.StockLeft = append(e.StockLeft, dray.StockLeave{SKU: sku, Reason: dray.LeftShape})
		}
	}
}
