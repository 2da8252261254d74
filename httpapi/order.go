package httpapi

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
	"dray/realtime/inventory"
)

// An order is what a message or a body asks of the stock, checked for form: the types of
// its members and their ranges.
type order struct {
	location    string        // "" where near is meant
	near        *dray.Circle  // reserve
	sku         string        // stock
	reservation string        // commit, release, extend
	items       []dray.Item   // nil when absent
	ttl         time.Duration // 0 when absent
	options     inventory.Options
}

// wireOrder is an order as JSON holds it. Members stay text until their type is checked.
type wireOrder struct {
	Location    jsontext.Value `json:"location"`
	Near        jsontext.Value `json:"near"`
	SKU         jsontext.Value `json:"sku"`
	Reservation jsontext.Value `json:"reservation"`
	Items       jsontext.Value `json:"items"`
	TTL         jsontext.Value `json:"ttlSeconds"`
	Key         jsontext.Value `json:"key"`
	Replicas    jsontext.Value `json:"replicas"`
}

// readOrder reads what a message of this type asks of the stock.
func (w *wireOrder) readOrder(typ string) (o *order, err error) {
	o = new(order)
	switch typ {
	case typeStock:
		err = w.readStock(o)
	case typeReserve:
		err = w.readCart(o)
	case typeExtend:
		err = w.readExtend(o)
	default:
		err = w.readPart(o)
	}
	if err == nil && typ != typeStock && typ != typeReserve {
		o.reservation, err = readReservation(w.Reservation)
	}
	if err == nil && !absent(w.Key) {
		if readString("key", w.Key, &o.options.Key) != nil || !validKey(o.options.Key) {
			err = notKey("key")
		}
	}
	return o, err
}

func (w *wireOrder) readStock(o *order) (err error) {
	if o.location, err = readLocation(w.Location); err != nil {
		return err
	}
	o.sku, err = readID("sku", w.SKU)
	return err
}

// readCart reads a new reservation.
func (w *wireOrder) readCart(o *order) (err error) {
	switch {
	case absent(w.Near):
		o.location, err = readLocation(w.Location)
	case absent(w.Location):
		o.near, err = readCircle("near", w.Near)
	default:
		err = dray.FieldError(dray.CodeBadRequest, "near", "stands instead of location, not beside it")
	}
	if err != nil {
		return err
	}
	if o.items, err = readItems(w.Items); err != nil {
		return err
	}
	return w.readExtend(o)
}

// readPart reads a commit or a release: of all, or of some items.
func (w *wireOrder) readPart(o *order) (err error) {
	if !absent(w.Items) {
		if o.items, err = readItems(w.Items); err != nil {
			return err
		}
	}
	o.options.Replicas, err = readReplicas(w.Replicas)
	return err
}

func (w *wireOrder) readExtend(o *order) (err error) {
	if !absent(w.TTL) {
		seconds, ok := integer(w.TTL)
		if most := int64(dray.MaxHold / time.Second); !ok || seconds < 1 || seconds > most {
			return dray.FieldError(dray.CodeBadRequest, "ttlSeconds", "must be an integer from 1 to %d", most)
		}
		o.ttl = time.Duration(seconds) * time.Second
	}
	o.options.Replicas, err = readReplicas(w.Replicas)
	return err
}

// readItems reads 1 to dray.MaxLines lines. A line of nothing is no way to ask for all.
func readItems(v jsontext.Value) ([]dray.Item, error) {
	var lines []jsontext.Value
	if v.Kind() != '[' || dray.Unmarshal(v, &lines) != nil || len(lines) == 0 {
		return nil, dray.FieldError(dray.CodeBadRequest, "items", "must be a list of 1 to %d lines", dray.MaxLines)
	}
	if len(lines) > dray.MaxLines {
		return nil, dray.FieldError(dray.CodeTooLarge, "items", "at most %d lines", dray.MaxLines)
	}
	items := make([]dray.Item, len(lines))
	for i, line := range lines {
		var w struct {
			SKU      jsontext.Value `json:"sku"`
			Quantity jsontext.Value `json:"quantity"`
		}
		field := fmt.Sprintf("items[%d]", i)
		err := readObject(field, line, &w)
		if err == nil {
			items[i].SKU, err = readID(field+".sku", w.SKU)
		}
		if err == nil {
			items[i].Quantity, err = readUnits(field+".quantity", w.Quantity, 1)
		}
		if err != nil {
			return nil, err
		}
	}
	return items, nil
}

// readUnits reads a number of units, at least so many.
func readUnits(field string, v jsontext.Value, least int64) (int64, error) {
	n, ok := integer(v)
	if !ok || n < least || n > dray.MaxQuantity {
		return 0, dray.FieldError(dray.CodeBadRequest, field, "must be an integer from %d to %d", least, dray.MaxQuantity)
	}
	return n, nil
}

func readID(field string, v jsontext.Value) (id string, err error) {
	if readString(field, v, &id) != nil || !dray.ValidID(id) {
		return "", notID(field)
	}
	return id, nil
}

func notID(field string) error {
	return dray.FieldError(dray.CodeBadRequest, field, "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxID)
}

// readLocation reads a location, which may be left out.
func readLocation(v jsontext.Value) (string, error) {
	if absent(v) {
		return dray.DefaultLocation, nil
	}
	return readID("location", v)
}

func readReservation(v jsontext.Value) (id string, err error) {
	if readString("reservation", v, &id) != nil || !dray.ValidServerID(id) {
		return "", notServerID("reservation")
	}
	return id, nil
}

func notServerID(field string) error {
	return dray.FieldError(dray.CodeBadRequest, field, "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxServerID)
}

func readReplicas(v jsontext.Value) (int, error) {
	if absent(v) {
		return 0, nil
	}
	n, ok := integer(v)
	if !ok || n < 0 || n > dray.MaxReplicas {
		return 0, notReplicas()
	}
	return int(n), nil
}

func notReplicas() error {
	return dray.FieldError(dray.CodeBadRequest, "replicas", "must be an integer from 0 to %d", dray.MaxReplicas)
}

// validKey tells whether a key is 1 to dray.MaxKey printable ASCII letters.
func validKey(key string) bool {
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return false
		}
	}
	return key != "" && len(key) <= dray.MaxKey
}

func notKey(field string) error {
	return dray.FieldError(dray.CodeBadRequest, field, "must be 1 to %d printable ASCII letters", dray.MaxKey)
}
