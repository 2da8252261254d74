package client

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"dray"
)

// frame is any message of the server: the members of all types side by side, so that one
// pass decodes it.
type frame struct {
	Type string         `json:"type"`
	ID   jsontext.Value `json:"id"` // as it was sent: always an integer of ours

	// ack, and the error of a refused position
	Seq uint64 `json:"seq"`

	// snapshot, delta, result of nearby
	Version    uint64  `json:"version"`
	ServerTime int64   `json:"serverTime"`
	Drivers    drivers `json:"drivers"`
	Entered    drivers `json:"entered"`
	Moved      drivers `json:"moved"`
	Left       []leave `json:"left"`

	// result of claim
	Claim *dray.Claim `json:"claim"`

	// snapshot and delta of stock, beside Stock
	rows   []dray.Stock      // what Stock holds then
	Events []dray.StockEvent `json:"events"`

	// results of the stock; Stock is a list in a snapshot or delta
	Stock       jsontext.Value    `json:"stock"`
	Reservation *dray.Reservation `json:"reservation"`

	// ok of positions
	Accepted   int        `json:"accepted"`
	Superseded int        `json:"superseded"`
	Rejected   []rejected `json:"rejected"`

	// error, goodbye
	Code         dray.Code     `json:"code"`
	Message      string        `json:"message"`
	Details      []dray.Detail `json:"details"`
	RetryAfterMs int64         `json:"retryAfterMs"`
	Reason       string        `json:"reason"`

	// welcome
	Connection  string `json:"connection"`
	HeartbeatMs int64  `json:"heartbeatMs"`
	Limits      Limits `json:"limits"`
}

// A leave is of a driver, or of a SKU.
type leave struct {
	dray.Leave
	SKU string `json:"sku"`
}

type rejected struct {
	Index   int       `json:"index"`
	Code    dray.Code `json:"code"`
	Message string    `json:"message"`
}

// keepDrivers is how many drivers of room a frame keeps for the next one.
const keepDrivers = 4096

// decode reads b into f, which may have been used before: its slices are reused, but for
// Drivers. seen may be nil.
func (f *frame) decode(b []byte, seen *interned) error {
	*f = frame{
		Drivers: drivers{seen: seen},
		Entered: drivers{reuse(f.Entered.list), seen},
		Moved:   drivers{reuse(f.Moved.list), seen},
		Left:    f.Left[:0],
	}
	if err := dray.Unmarshal(b, f); err != nil || f.Stock.Kind() != '[' {
		return err
	}
	return dray.Unmarshal(f.Stock, &f.rows)
}

func reuse(s []dray.Driver) []dray.Driver {
	if cap(s) > keepDrivers {
		return nil
	}
	return s[:0]
}

// err rebuilds the error that the server had.
func (f *frame) err() *dray.Error {
	return &dray.Error{
		Code:       f.Code,
		Message:    f.Message,
		Details:    f.Details,
		RetryAfter: time.Duration(f.RetryAfterMs) * time.Millisecond,
	}
}

func (f *frame) welcome() Welcome {
	return Welcome{
		Connection: f.Connection,
		ServerTime: time.UnixMilli(f.ServerTime),
		Heartbeat:  time.Duration(f.HeartbeatMs) * time.Millisecond,
		Limits:     f.Limits,
	}
}

// request starts a message of the client; the members that follow are appended to it, and
// a closing brace.
func request(kind, id string) []byte {
	b := append(make([]byte, 0, 256), `{"type":"`...)
	b = append(b, kind...)
	b = append(b, `","id":`...)
	return append(b, id...)
}

// appendPosition appends the message that streams p with its seq.
func appendPosition(dst []byte, seq uint64, p *dray.Position) []byte {
	dst = append(dst, `{"type":"position","seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, ',')
	at := len(dst)
	dst = p.AppendJSON(dst)
	// p's object opens with a brace that ours already has.
	return append(dst[:at], dst[at+1:]...)
}

// appendMember appends a named member. v is of a type that encodes without failing.
func appendMember(dst []byte, name string, v any) []byte {
	value, err := json.Marshal(v)
	if err != nil {
		panic("client: " + name + ": " + err.Error()) // no type of the contract does this
	}
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return append(dst, value...)
}

// appendShape appends the shape as the one member that it is. json.Marshal fails on numbers
// that are not finite, so it is an error of the caller here.
func appendShape(dst []byte, s dray.Shape) ([]byte, error) {
	value, err := json.Marshal(s)
	if err != nil {
		return nil, dray.Errorf(dray.CodeBadRequest, "shape can't be written as JSON: %v", err)
	}
	if len(value) <= len("{}") {
		return nil, dray.Errorf(dray.CodeBadRequest, "no shape is given")
	}
	return append(append(dst, ','), value[1:len(value)-1]...), nil
}
