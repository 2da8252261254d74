package dray

import (
	"math"
	"time"
	"unicode/utf8"
)

// Limits of the contract.
const (
	// MaxLatitude is how far north or south a position may be: the limit of Redis GEOADD,
	// where the square of Web Mercator ends.
	MaxLatitude = 85.05112878

	MaxPositions      = 1000             // positions in one batch
	MaxRadius         = 50_000.0         // metres, of a nearby question or subscription
	MaxFuture         = 60 * time.Second // how far ahead of the server's clock a timestamp may be
	MaxAttributes     = 16               // attributes of a driver
	MaxAttributeKey   = 64               // bytes
	MaxAttributeValue = 256              // bytes
	DefaultLimit      = 50               // drivers in the answer to a nearby question
	MaxLimit          = 1000
)

// DefaultTTL is how long a position keeps its driver live after it was received.
const DefaultTTL = 60 * time.Second

// A Point is a place: WGS 84 degrees.
type Point struct {
	Latitude  float64 `json:"latitude"`  // degrees north, within ±MaxLatitude
	Longitude float64 `json:"longitude"` // degrees east, within ±180
}

// Valid tells whether p is finite and in range.
func (p Point) Valid() bool {
	return math.Abs(p.Latitude) <= MaxLatitude && math.Abs(p.Longitude) <= 180 // NaN compares false
}

// EarthRadius is the radius in metres of the sphere that distances are measured on: that of
// Redis (EARTH_RADIUS_IN_METERS in src/geohash_helper.c).
const EarthRadius = 6372797.560856

// Distance is the great-circle distance between a and b in metres, by the haversine formula
// (R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68, 1984).
func Distance(a, b Point) float64 {
	const rad = math.Pi / 180
	u := math.Sin((b.Latitude - a.Latitude) * rad / 2)
	v := math.Sin((b.Longitude - a.Longitude) * rad / 2)
	h := u*u + math.Cos(a.Latitude*rad)*math.Cos(b.Latitude*rad)*v*v
	return 2 * EarthRadius * math.Asin(math.Sqrt(min(h, 1)))
}

// A Position is one report of where a driver is.
type Position struct {
	Driver     string            // see ValidID
	Latitude   float64           // WGS 84 degrees north, within ±MaxLatitude
	Longitude  float64           // WGS 84 degrees east, within ±180
	Accuracy   float64           // metres, >= 0; NaN when unknown
	Altitude   float64           // metres above the ellipsoid; NaN when unknown
	Heading    float64           // degrees clockwise from true north in [0, 360); NaN when unknown
	Speed      float64           // metres per second over ground, >= 0; NaN when unknown
	Timestamp  time.Time         // when the fix was taken, kept to the millisecond; zero means now
	Attributes map[string]string // nil means "as last sent", empty means none; never changed once reported
}

// NewPosition is a Position at a place with all else unknown.
func NewPosition(driver string, at Point) Position {
	nan := math.NaN()
	return Position{Driver: driver, Latitude: at.Latitude, Longitude: at.Longitude,
		Accuracy: nan, Altitude: nan, Heading: nan, Speed: nan}
}

// Point is where p is.
func (p *Position) Point() Point { return Point{p.Latitude, p.Longitude} }

// Validate checks every field of p against the contract; now is the server's clock.
// It fails with ErrBadRequest (driver, attributes) or ErrInvalidPosition (all else).
func (p *Position) Validate(now time.Time) error {
	if !ValidID(p.Driver) {
		return FieldError(CodeBadRequest, "driver", "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", MaxID)
	}
	if err := p.ValidateFix(now); err != nil {
		return err
	}
	return ValidateAttributes(p.Attributes)
}

// ValidateFix checks where p is and when: all but its driver and attributes. now is the
// server's clock. It fails with ErrInvalidPosition.
func (p *Position) ValidateFix(now time.Time) error {
	switch {
	case !(math.Abs(p.Latitude) <= MaxLatitude):
		return FieldError(CodeInvalidPosition, "latitude", "must be within ±%v degrees", MaxLatitude)
	case !(math.Abs(p.Longitude) <= 180):
		return FieldError(CodeInvalidPosition, "longitude", "must be within ±180 degrees")
	case p.Accuracy < 0 || math.IsInf(p.Accuracy, 0):
		return FieldError(CodeInvalidPosition, "accuracy", "must be metres, 0 or more")
	case math.IsInf(p.Altitude, 0):
		return FieldError(CodeInvalidPosition, "altitude", "must be finite metres")
	case p.Heading < 0 || p.Heading >= 360:
		return FieldError(CodeInvalidPosition, "heading", "must be degrees in [0, 360)")
	case p.Speed < 0 || math.IsInf(p.Speed, 0):
		return FieldError(CodeInvalidPosition, "speed", "must be metres per second, 0 or more")
	}
	if !p.Timestamp.IsZero() {
		if ms := p.Timestamp.UnixMilli(); ms < 0 || ms > now.Add(MaxFuture).UnixMilli() {
			return FieldError(CodeInvalidPosition, "timestamp", "must be milliseconds since 1970, at most %v ahead", MaxFuture)
		}
	}
	return nil
}

// ValidateAttributes checks attributes against the contract: at most MaxAttributes pairs
// of UTF-8, within their lengths. It fails with ErrBadRequest.
func ValidateAttributes(attributes map[string]string) error {
	if len(attributes) > MaxAttributes {
		return FieldError(CodeBadRequest, "attributes", "at most %d pairs", MaxAttributes)
	}
	for k, v := range attributes {
		if len(k) == 0 || len(k) > MaxAttributeKey || len(v) > MaxAttributeValue {
			return FieldError(CodeBadRequest, "attributes", "keys are 1 to %d bytes, values to %d", MaxAttributeKey, MaxAttributeValue)
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return FieldError(CodeBadRequest, "attributes", "must be UTF-8")
		}
	}
	return nil
}

// A Driver is what is known of a live driver: its newest position and when that came.
type Driver struct {
	Position
	ReceivedAt time.Time // the server's clock, kept to the millisecond
	Distance   float64   // metres from the place asked about; NaN where nothing was asked
	Claimed    bool      // somebody holds it
}

// A Leave tells that a driver left a subscription's set, and why.
type Leave struct {
	Driver string      `json:"driver"`
	Reason LeaveReason `json:"reason"`
}

// A LeaveReason is why a driver left.
type LeaveReason string

// The reasons of the contract.
const (
	LeftMoved   LeaveReason = "moved"   // it went out of the shape
	LeftStale   LeaveReason = "stale"   // silent for longer than the location TTL
	LeftOffline LeaveReason = "offline" // it said so
	LeftFilter  LeaveReason = "filter"  // its attributes, or the filter, changed
	LeftClaimed LeaveReason = "claimed" // somebody holds it now
	LeftShape   LeaveReason = "shape"   // the subscription's own shape moved
)
