package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"dray"
	"dray/client"
)

// appendStockEvent appends e as a snapshot or delta of stock as on the wire, SKUs in order.
func appendStockEvent(dst []byte, e client.Event) []byte {
	kind := "delta"
	if e.Snapshot {
		kind = "snapshot"
	}
	dst = fmt.Appendf(dst, `{"type":"%s","version":%d,"serverTime":%d`, kind, e.Version, e.ServerTime.UnixMilli())
	slices.SortFunc(e.StockLeft, func(a, b dray.StockLeave) int { return cmp.Compare(a.SKU, b.SKU) })
	dst = appendObjects(dst, "left", len(e.StockLeft), false, func(dst []byte, i int) []byte {
		dst = dray.AppendString(append(dst, `{"sku":`...), e.StockLeft[i].SKU)
		return append(dray.AppendString(append(dst, `,"reason":`...), string(e.StockLeft[i].Reason)), '}')
	})
	slices.SortFunc(e.Stock, bySKU)
	dst = appendObjects(dst, "stock", len(e.Stock), e.Snapshot, func(dst []byte, i int) []byte { return e.Stock[i].AppendJSON(dst) })
	slices.SortFunc(e.StockEvents, func(a, b dray.StockEvent) int { return cmp.Compare(a.SKU, b.SKU) })
	dst = appendObjects(dst, "events", len(e.StockEvents), false, func(dst []byte, i int) []byte { return e.StockEvents[i].AppendJSON(dst) })
	return append(dst, '}')
}

// appendObjects appends a list of n objects as a member; an empty one only where it is always there.
func appendObjects(dst []byte, name string, n int, always bool, object func(dst []byte, i int) []byte) []byte {
	if n == 0 && !always {
		return dst
	}
	dst = append(dst, `,"`+name+`":[`...)
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = object(dst, i)
	}
	return append(dst, ']')
}

func bySKU(a, b dray.Stock) int { return cmp.Compare(a.SKU, b.SKU) }

// drawStock writes the table of stock, within width and height where they are not 0.
func (v *view) drawStock(w io.Writer, stock []dray.Stock, width, height int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.meter(time.Now())
	slices.SortFunc(stock, bySKU)
	var rows [][]string
	out, low := 0, 0
	for _, s := range stock {
		note := ""
		switch {
		case s.Available == 0:
			note, out = string(dray.StockOut), out+1
		case s.Available <= v.stock.Low:
			note, low = string(dray.StockLow), low+1
		}
		rows = append(rows, []string{printable(s.SKU), strconv.FormatInt(s.Available, 10), strconv.FormatInt(s.Reserved, 10),
			strconv.FormatInt(s.Quantity, 10), clock(s.LastUpdated), note})
	}
	head := fmt.Sprintf("%s %s, %d out", count(len(stock), "SKU"), v.what, out)
	if v.stock.Low > 0 {
		head += fmt.Sprintf(", %d low", low)
	}
	lines := []string{head}
	if !v.once {
		lines[0] += fmt.Sprintf(", %.0f changes/s", v.rate)
		lines = append(lines, v.state)
	}
	most := len(rows)
	if height > 0 {
		most = min(most, max(0, height-5))
	}
	var table strings.Builder
	_ = grid(&table, []string{"<SKU", "AVAILABLE", "RESERVED", "ON HAND", "CHANGED", "<"}, rows[:most]) // a Builder takes all
	lines = append(lines, strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n")...)
	if most < len(rows) {
		lines = append(lines, fmt.Sprintf("... and %d more", len(rows)-most))
	}
	writeLines(w, lines, width, height)
}
