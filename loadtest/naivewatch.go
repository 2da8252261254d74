package loadtest

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/uber/h3-go/v4"

	"dray"
)

type naiveSnapshot struct {
	Type       string          `json:"type"`
	ID         json.RawMessage `json:"id"`
	Version    int64           `json:"version"`
	ServerTime int64           `json:"serverTime"`
	Drivers    []naiveObject   `json:"drivers"`
}

type naiveDelta struct {
	Type       string          `json:"type"`
	ID         json.RawMessage `json:"id"`
	Version    int64           `json:"version"`
	ServerTime int64           `json:"serverTime"`
	Left       []dray.Leave    `json:"left,omitempty"`
	Entered    []naiveObject   `json:"entered,omitempty"`
	Moved      []naiveObject   `json:"moved,omitempty"`
}

// subscribe sends the snapshot of a circle, and from then on each change by itself.
func (c *naiveConn) subscribe(ctx context.Context, m *naiveMessage) error {
	circle := *m.Nearby
	var channels []string
	for _, cell := range cover(circle) {
		channels = append(channels, naiveCell(cell))
	}
	feed := c.rdb.Subscribe(ctx, channels...)
	messages := feed.Channel(redis.WithChannelSize(1000))
	found, err := c.nearby(ctx, circle.Center(), circle.Radius, 0)
	if err != nil {
		feed.Close()
		return err
	}
	in := map[string]bool{}
	drivers := make([]naiveObject, 0, len(found))
	for _, d := range found {
		if d.Distance = nil; dray.Distance(circle.Center(), d.point()) <= circle.Radius {
			in[d.Driver] = true
			drivers = append(drivers, d)
		}
	}
	if err := c.send(ctx, naiveSnapshot{"snapshot", m.ID, 1, time.Now().UnixMilli(), drivers}); err != nil {
		feed.Close()
		return err
	}
	go func() {
		defer feed.Close()
		id := m.ID
		for version := int64(2); ; version++ {
			delta := naiveDelta{Type: "delta", ID: id, Version: version}
			for delta.ServerTime == 0 {
				select {
				case <-ctx.Done():
					return
				case message, ok := <-messages:
					if !ok {
						return
					}
					c.filter(message, circle, in, &delta)
				}
			}
			if c.send(ctx, &delta) != nil {
				return
			}
		}
	}()
	return nil
}

// filter puts what a message means for a circle into delta, if it means anything.
func (c *naiveConn) filter(message *redis.Message, circle dray.Circle, in map[string]bool, delta *naiveDelta) {
	var d naiveObject
	if json.Unmarshal([]byte(message.Payload), &d) != nil {
		return
	}
	if d.From != "" && message.Channel == naiveChannel+d.From && touches(circle, cellOf(d.point())) {
		return // it comes by the channel of its new cell too
	}
	d.From = ""
	inside := dray.Distance(circle.Center(), d.point()) <= circle.Radius
	switch was := in[d.Driver]; {
	case inside && was:
		delta.Moved = []naiveObject{d}
	case inside:
		delta.Entered = []naiveObject{d}
		in[d.Driver] = true
	case was:
		delta.Left = []dray.Leave{{Driver: d.Driver, Reason: dray.LeftMoved}}
		delete(in, d.Driver)
	default:
		return
	}
	delta.ServerTime = time.Now().UnixMilli()
}

// cover is the cells that a circle may touch.
func cover(circle dray.Circle) []h3.Cell {
	middle := cellOf(circle.Center())
	all := map[h3.Cell]bool{middle: true}
	for k, before := 1, 0; len(all) > before; k++ {
		before = len(all)
		for _, cell := range h3.GridDisk(middle, k) {
			if !all[cell] && touches(circle, cell) {
				all[cell] = true
			}
		}
	}
	return slices.Collect(maps.Keys(all))
}

// touches tells whether a cell may hold a place of a circle, by the circle around the cell.
func touches(circle dray.Circle, cell h3.Cell) bool {
	at := h3.CellToLatLng(cell)
	middle := dray.Point{Latitude: at.Lat, Longitude: at.Lng}
	reach := 0.0
	for _, corner := range h3.CellToBoundary(cell) {
		reach = max(reach, dray.Distance(middle, dray.Point{Latitude: corner.Lat, Longitude: corner.Lng}))
	}
	return dray.Distance(circle.Center(), middle) <= circle.Radius+reach
}
