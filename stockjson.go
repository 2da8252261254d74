package dray

import (
	"math"
	"strconv"
	"time"
)

// AppendJSON appends s as the Stock object of the contract.
func (s *Stock) AppendJSON(dst []byte) []byte {
	dst = AppendString(append(dst, `{"location":`...), s.Location)
	dst = AppendString(append(dst, `,"sku":`...), s.SKU)
	dst = appendInt(dst, `,"quantity":`, s.Quantity)
	dst = appendInt(dst, `,"reserved":`, s.Reserved)
	dst = appendInt(dst, `,"available":`, s.Available)
	dst = appendInt(dst, `,"version":`, s.Version)
	return append(appendInt(dst, `,"lastUpdated":`, s.LastUpdated.UnixMilli()), '}')
}

// AppendJSON appends e as the contract's event of a stock subscription.
func (e *StockEvent) AppendJSON(dst []byte) []byte {
	dst = AppendString(append(dst, `{"sku":`...), e.SKU)
	dst = AppendString(append(dst, `,"event":`...), string(e.Event))
	return append(appendInt(dst, `,"available":`, e.Available), '}')
}

// AppendJSON appends r as the Reservation object of the contract.
func (r *Reservation) AppendJSON(dst []byte) []byte {
	dst = AppendString(append(dst, `{"reservation":`...), r.Reservation)
	dst = AppendString(append(dst, `,"location":`...), r.Location)
	dst = AppendString(append(dst, `,"status":`...), string(r.Status))
	dst = append(dst, `,"items":[`...)
	for i, it := range r.Items {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(append(dst, `{"sku":`...), it.SKU)
		dst = appendInt(dst, `,"quantity":`, it.Quantity)
		dst = appendInt(dst, `,"committed":`, it.Committed)
		dst = append(appendInt(dst, `,"released":`, it.Released), '}')
	}
	dst = append(dst, ']')
	if !r.ExpiresAt.IsZero() {
		dst = appendInt(dst, `,"expiresAt":`, r.ExpiresAt.UnixMilli())
	}
	d := r.Durability()
	dst = AppendString(append(dst, `,"durability":{"level":`...), d.Level)
	dst = append(appendInt(dst, `,"replicas":`, int64(d.Replicas)), '}')
	return append(appendKnown(dst, `,"distance":`, r.Distance), '}')
}

// AppendJSON appends e as the ledger entry of the contract.
func (e *LedgerEntry) AppendJSON(dst []byte) []byte {
	dst = appendInt(dst, `{"entry":`, e.Entry)
	dst = appendInt(dst, `,"at":`, e.At.UnixMilli())
	dst = AppendString(append(dst, `,"location":`...), e.Location)
	dst = AppendString(append(dst, `,"sku":`...), e.SKU)
	dst = AppendString(append(dst, `,"kind":`...), string(e.Kind))
	dst = appendStep(append(dst, `,"quantity":`...), e.Quantity)
	dst = appendStep(append(dst, `,"reserved":`...), e.Reserved)
	for _, m := range [...]struct{ name, value string }{
		{`,"reservation":`, e.Reservation}, {`,"reason":`, e.Reason}, {`,"by":`, e.By},
	} {
		if m.value != "" {
			dst = AppendString(append(dst, m.name...), m.value)
		}
	}
	return append(dst, '}')
}

func appendStep(dst []byte, s Step) []byte {
	dst = appendInt(dst, `{"before":`, s.Before)
	return append(appendInt(dst, `,"after":`, s.After), '}')
}

func appendInt(dst []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(dst, name...), n, 10)
}

// MarshalJSON is AppendJSON for package json.
func (s *Stock) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }

// MarshalJSON is AppendJSON for package json.
func (r *Reservation) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil), nil }

// MarshalJSON is AppendJSON for package json.
func (e *LedgerEntry) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// UnmarshalJSON reads the contract's Stock object.
func (s *Stock) UnmarshalJSON(b []byte) error {
	var w struct {
		Location    string `json:"location"`
		SKU         string `json:"sku"`
		Quantity    int64  `json:"quantity"`
		Reserved    int64  `json:"reserved"`
		Available   int64  `json:"available"`
		Version     int64  `json:"version"`
		LastUpdated int64  `json:"lastUpdated"`
	}
	if err := Unmarshal(b, &w); err != nil {
		return err
	}
	*s = Stock{w.Location, w.SKU, w.Quantity, w.Reserved, w.Available, w.Version, time.UnixMilli(w.LastUpdated)}
	return nil
}

// UnmarshalJSON reads the contract's Reservation object.
func (r *Reservation) UnmarshalJSON(b []byte) error {
	var w struct {
		Reservation string            `json:"reservation"`
		Location    string            `json:"location"`
		Status      ReservationStatus `json:"status"`
		Items       []ReservedItem    `json:"items"`
		ExpiresAt   *int64            `json:"expiresAt"`
		Durability  Durability        `json:"durability"`
		Distance    *float64          `json:"distance"`
	}
	if err := Unmarshal(b, &w); err != nil {
		return err
	}
	*r = Reservation{Reservation: w.Reservation, Location: w.Location, Status: w.Status,
		Items: w.Items, Replicas: w.Durability.Replicas, Distance: math.NaN()}
	if w.ExpiresAt != nil {
		r.ExpiresAt = time.UnixMilli(*w.ExpiresAt)
	}
	if w.Distance != nil {
		r.Distance = *w.Distance
	}
	return nil
}

// UnmarshalJSON reads the contract's ledger entry.
func (e *LedgerEntry) UnmarshalJSON(b []byte) error {
	var w struct {
		Entry       int64      `json:"entry"`
		At          int64      `json:"at"`
		Location    string     `json:"location"`
		SKU         string     `json:"sku"`
		Kind        LedgerKind `json:"kind"`
		Quantity    Step       `json:"quantity"`
		Reserved    Step       `json:"reserved"`
		Reservation string     `json:"reservation"`
		Reason      string     `json:"reason"`
		By          string     `json:"by"`
	}
	if err := Unmarshal(b, &w); err != nil {
		return err
	}
	*e = LedgerEntry{w.Entry, time.UnixMilli(w.At), w.Location, w.SKU, w.Kind, w.Quantity, w.Reserved, w.Reservation, w.Reason, w.By}
	return nil
}
