package dray

import (
	"slices"
	"time"
)

// Limits of a subscription's shape.
const (
	MaxPolygonPoints = 1000
	MaxCells         = 500
	MaxDrivers       = 500
	MaxSKUs          = 500
	MaxSpan          = 500_000.0 // metres from corner to corner of bounds or an area
	MaxInterval      = 60 * time.Second
	DefaultInterval  = time.Second
	MaxFilterKeys    = MaxAttributes
	MaxFilterValues  = 64       // of one key
	MaxFilterBytes   = 16 << 10 // of all keys and values
)

// A Shape is what a subscription watches. Exactly one member is set.
type Shape struct {
	Nearby  *Circle     `json:"nearby,omitempty"`
	Bounds  *Bounds     `json:"bounds,omitempty"`
	Area    *Polygon    `json:"area,omitempty"`
	Cells   []string    `json:"cells,omitempty"`   // up to MaxCells H3 indexes, of any resolution
	Drivers []string    `json:"drivers,omitempty"` // up to MaxDrivers ids
	Stock   *StockShape `json:"stock,omitempty"`
}

// A Circle is a place and a radius in metres, in (0, MaxRadius].
type Circle struct {
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
	Radius    float64 `json:"radius"`
}

// Center is the middle of c.
func (c *Circle) Center() Point { return Point{c.Latitude, c.Longitude} }

// Bounds is a box of WGS 84 degrees, edges included. West > East crosses the antimeridian.
type Bounds struct {
	South float64 `json:"south"`
	West  float64 `json:"west"`
	North float64 `json:"north"`
	East  float64 `json:"east"`
}

// A Polygon is a GeoJSON Polygon (RFC 7946): rings of [longitude, latitude], the first the
// outline, the others holes, each closed. Its edges are straight in degrees, as RFC 7946
// draws them; an edge that spans over 180 degrees of longitude crosses the antimeridian.
type Polygon struct {
	Type        string         `json:"type"` // "Polygon"
	Coordinates [][][2]float64 `json:"coordinates"`
}

// A StockShape is a location and, where given, some of its SKUs.
type StockShape struct {
	Location string   `json:"location"`
	SKUs     []string `json:"skus,omitempty"` // up to MaxSKUs; none is all there are and will be
	Low      int64    `json:"low,omitzero"`   // threshold of the event StockLow, 1 to MaxQuantity; 0 is none
}

// Validate checks s. It fails with ErrBadRequest or ErrTooLarge.
func (s *StockShape) Validate() error {
	if !ValidID(s.Location) {
		return FieldError(CodeBadRequest, "stock.location", "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", MaxID)
	}
	if len(s.SKUs) > MaxSKUs {
		return FieldError(CodeTooLarge, "stock.skus", "at most %d", MaxSKUs)
	}
	for _, sku := range s.SKUs {
		if !ValidID(sku) {
			return FieldError(CodeBadRequest, "stock.skus", "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ - each", MaxID)
		}
	}
	if s.Low < 0 || s.Low > MaxQuantity {
		return FieldError(CodeBadRequest, "stock.low", "must be 1 to %d", MaxQuantity)
	}
	return nil
}

// A Filter selects drivers by attributes: every key must match one of its values. An empty
// Filter selects all.
type Filter map[string][]string

// Match tells whether a driver with these attributes passes f.
func (f Filter) Match(attributes map[string]string) bool {
	for k, values := range f {
		v, ok := attributes[k]
		if !ok || !slices.Contains(values, v) {
			return false
		}
	}
	return true
}

// Validate checks the sizes of f. It fails with ErrBadRequest or ErrTooLarge.
func (f Filter) Validate() error {
	if len(f) > MaxFilterKeys {
		return FieldError(CodeTooLarge, "filter", "at most %d keys", MaxFilterKeys)
	}
	total := 0
	for k, values := range f {
		if total += len(k); len(values) == 0 {
			return FieldError(CodeBadRequest, "filter", "a key needs a value")
		}
		if len(values) > MaxFilterValues || len(k) > MaxAttributeKey {
			return FieldError(CodeTooLarge, "filter", "at most %d values a key, keys to %d bytes", MaxFilterValues, MaxAttributeKey)
		}
		for _, v := range values {
			if len(v) > MaxAttributeValue {
				return FieldError(CodeTooLarge, "filter", "values to %d bytes", MaxAttributeValue)
			}
			total += len(v)
		}
	}
	if total > MaxFilterBytes {
		return FieldError(CodeTooLarge, "filter", "at most %d bytes in all", MaxFilterBytes)
	}
	return nil
}
