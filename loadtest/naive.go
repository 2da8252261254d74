package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"
	"github.com/uber/h3-go/v4"

	"dray"
)

// Naive is the server that one would write first, to compare with: coder/websocket,
// encoding/json, one go-redis pipeline (GEOADD, HSET, EXPIRE, PUBLISH) a message, one
// GEOSEARCH a question, one EVALSHA a reservation, and for each watcher a Redis subscription to the H3 cells that its
// circle touches. It speaks enough of the contract to be measured by the same load, and
// keeps fewer of its promises: positions overtake each other, silent drivers stay in sets, and
// what happens while a watcher's snapshot is read is lost on it.
type Naive struct {
	rdb *redis.Client
	mux *http.ServeMux
}

// NewNaive makes a naive server on the Redis at address. Close it.
func NewNaive(address string) *Naive {
	n := &Naive{openRedis(address), http.NewServeMux()}
	n.mux.HandleFunc("GET /v1/ws", n.socket)
	n.mux.HandleFunc("GET /v1/drivers/nearby", n.getNearby)
	n.mux.HandleFunc("GET /v1/drivers/{driver}", n.getDriver)
	n.mux.HandleFunc("PUT /v1/stock/{location}/{sku}", n.putStock)
	n.mux.HandleFunc("GET /v1/stock/{location}/{sku}", n.getStock)
	n.mux.HandleFunc("POST /v1/reservations", n.postReservation)
	return n
}

// Close ends its Redis client.
func (n *Naive) Close() error { return n.rdb.Close() }

const (
	naiveKey        = "naive:geo"
	naiveChannel    = "naive:cell:" // and the cell
	naiveTTL        = dray.DefaultTTL
	naiveResolution = 8 // of the cells that channels are of: finer would be more channels, coarser more to throw away
	naiveLimit      = 4 << 20
)

func naiveDriver(driver string) string { return "naive:driver:" + driver }
func naiveCell(cell h3.Cell) string    { return naiveChannel + cell.String() }

// ServeHTTP serves what the load asks for.
func (n *Naive) ServeHTTP(w http.ResponseWriter, r *http.Request) { n.mux.ServeHTTP(w, r) }

// A naiveObject is a Driver of the contract.
type naiveObject struct {
	ReceivedAt int64    `json:"receivedAt,omitempty"`
	Timestamp  int64    `json:"timestamp"`
	Driver     string   `json:"driver"`
	Latitude   float64  `json:"latitude"`
	Longitude  float64  `json:"longitude"`
	Distance   *float64 `json:"distance,omitempty"`
	From       string   `json:"from,omitempty"` // in a feed: the cell it was in before
}

func (d *naiveObject) point() dray.Point {
	return dray.Point{Latitude: d.Latitude, Longitude: d.Longitude}
}

func cellOf(p dray.Point) h3.Cell {
	return h3.LatLngToCell(h3.LatLng{Lat: p.Latitude, Lng: p.Longitude}, naiveResolution)
}

type naiveMessage struct {
	Type      string          `json:"type"`
	ID        json.RawMessage `json:"id"`
	Seq       int64           `json:"seq"`
	Positions []naiveObject   `json:"positions"`
	Nearby    *dray.Circle    `json:"nearby"`
	Radius    float64         `json:"radius"`
	Limit     int             `json:"limit"`
	naiveObject
}

type naiveOK struct {
	Type       string          `json:"type"`
	ID         json.RawMessage `json:"id"`
	Accepted   int             `json:"accepted"`
	Superseded int             `json:"superseded"`
	Rejected   []struct{}      `json:"rejected"`
}

type naiveAck struct {
	Type string `json:"type"`
	Seq  int64  `json:"seq"`
}

type naiveResult struct {
	Type    string          `json:"type,omitempty"`
	ID      json.RawMessage `json:"id,omitempty"`
	Drivers []naiveObject   `json:"drivers"`
}

// A naiveConn is one client.
type naiveConn struct {
	*Naive
	ws    *websocket.Conn
	cells map[string]h3.Cell // driver -> cell it was reported in last
}

func (n *Naive) socket(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"dray.v1.json"}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ws.SetReadLimit(naiveLimit)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	c := &naiveConn{n, ws, map[string]h3.Cell{}}
	for {
		_, b, err := ws.Read(ctx)
		if err != nil {
			return
		}
		var m naiveMessage
		if json.Unmarshal(b, &m) != nil {
			return
		}
		if err := c.handle(ctx, &m); err != nil {
			return
		}
	}
}

func (c *naiveConn) send(ctx context.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.ws.Write(ctx, websocket.MessageText, b)
}

func (c *naiveConn) handle(ctx context.Context, m *naiveMessage) error {
	switch m.Type {
	case "position":
		if err := c.store(ctx, []naiveObject{m.naiveObject}); err != nil {
			return err
		}
		return c.send(ctx, naiveAck{"ack", m.Seq})
	case "positions":
		if err := c.store(ctx, m.Positions); err != nil {
			return err
		}
		return c.send(ctx, naiveOK{"ok", m.ID, len(m.Positions), 0, []struct{}{}})
	case "nearby":
		drivers, err := c.nearby(ctx, m.point(), m.Radius, m.Limit)
		if err != nil {
			return err
		}
		return c.send(ctx, naiveResult{"result", m.ID, drivers})
	case "subscribe":
		return c.subscribe(ctx, m)
	}
	return errors.New("not served")
}

// store keeps positions and publishes each to the cell it is in, and to the one it was in.
func (c *naiveConn) store(ctx context.Context, positions []naiveObject) error {
	now := time.Now().UnixMilli()
	_, err := c.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, p := range positions {
			p.ReceivedAt = now
			cell := cellOf(p.point())
			if old, ok := c.cells[p.Driver]; ok && old != cell {
				p.From = old.String()
			}
			data, err := json.Marshal(&p)
			if err != nil {
				return err
			}
			pipe.GeoAdd(ctx, naiveKey, &redis.GeoLocation{Name: p.Driver, Latitude: p.Latitude, Longitude: p.Longitude})
			pipe.HSet(ctx, naiveDriver(p.Driver), "data", data)
			pipe.Expire(ctx, naiveDriver(p.Driver), naiveTTL)
			pipe.Publish(ctx, naiveCell(cell), data)
			if p.From != "" {
				pipe.Publish(ctx, naiveCell(c.cells[p.Driver]), data)
			}
			c.cells[p.Driver] = cell
		}
		return nil
	})
	return err
}

func (n *Naive) last(ctx context.Context, driver string) (*naiveObject, error) {
	data, err := n.rdb.HGet(ctx, naiveDriver(driver), "data").Bytes()
	if err != nil {
		return nil, err
	}
	d := new(naiveObject)
	err = json.Unmarshal(data, d)
	d.From = ""
	return d, err
}

// nearby is one GEOSEARCH, and one HGET for each driver found; all of them for limit 0.
func (n *Naive) nearby(ctx context.Context, at dray.Point, radius float64, limit int) ([]naiveObject, error) {
	found, err := n.rdb.GeoSearchLocation(ctx, naiveKey, &redis.GeoSearchLocationQuery{
		GeoSearchQuery: redis.GeoSearchQuery{Latitude: at.Latitude, Longitude: at.Longitude, Radius: radius, RadiusUnit: "m", Sort: "ASC", Count: limit},
		WithDist:       true,
	}).Result()
	if err != nil {
		return nil, err
	}
	cmds, err := n.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range found {
			pipe.HGet(ctx, naiveDriver(found[i].Name), "data")
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	drivers := make([]naiveObject, 0, len(found))
	for i := range found {
		data, err := cmds[i].(*redis.StringCmd).Bytes()
		if err != nil {
			continue // silent for too long
		}
		var d naiveObject
		if err := json.Unmarshal(data, &d); err != nil {
			return nil, err
		}
		d.From, d.Distance = "", &found[i].Dist
		drivers = append(drivers, d)
	}
	return drivers, nil
}

func (n *Naive) getDriver(w http.ResponseWriter, r *http.Request) {
	d, err := n.last(r.Context(), r.PathValue("driver"))
	switch {
	case errors.Is(err, redis.Nil):
		http.NotFound(w, r)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		_ = json.NewEncoder(w).Encode(d) // the client has gone, then
	}
}

func (n *Naive) getNearby(w http.ResponseWriter, r *http.Request) {
	var err error
	number := func(name string) float64 {
		f, bad := strconv.ParseFloat(r.FormValue(name), 64)
		err = errors.Join(err, bad)
		return f
	}
	at := dray.Point{Latitude: number("latitude"), Longitude: number("longitude")}
	radius, limit := number("radius"), number("limit")
	var drivers []naiveObject
	if err == nil {
		drivers, err = n.nearby(r.Context(), at, radius, int(limit))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(naiveResult{Drivers: drivers}) // the client has gone, then
}
