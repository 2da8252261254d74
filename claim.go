package dray

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of claims.
const (
	MaxClaimed  = 100       // drivers of one claim
	MaxClaimTTL = time.Hour // of a claim; the least is a second
)

// A ClaimRequest asks for the nearest drivers that pass Filter and that nobody holds.
type ClaimRequest struct {
	Circle               // where to look, as a nearby question does
	Count  int           // of drivers, 1 to MaxClaimed; 0 means 1
	Filter Filter        // nil selects all
	TTL    time.Duration // how long they are held: 1 s to MaxClaimTTL, in whole milliseconds

	// Key makes the request idempotent: the same caller's same key and request get the same
	// answer for 24 hours; see ValidateKey. Empty means that a repeated request is a new one.
	Key string
}

// Validate checks every field against the contract. It fails with ErrBadRequest,
// ErrInvalidPosition (latitude, longitude) or ErrTooLarge (filter).
func (r *ClaimRequest) Validate() error {
	p := NewPosition("", r.Center())
	if err := p.ValidateFix(time.Time{}); err != nil {
		return err
	}
	switch {
	case !(r.Radius > 0 && r.Radius <= MaxRadius):
		return FieldError(CodeBadRequest, "radius", "must be metres, over 0 and to %v", MaxRadius)
	case r.Count < 0 || r.Count > MaxClaimed:
		return FieldError(CodeBadRequest, "count", "must be an integer from 1 to %d", MaxClaimed)
	case r.TTL < time.Second || r.TTL > MaxClaimTTL:
		return FieldError(CodeBadRequest, "ttlSeconds", "must be an integer from 1 to %d", int(MaxClaimTTL.Seconds()))
	}
	if err := ValidateKey(r.Key); err != nil {
		return err
	}
	return r.Filter.Validate()
}

// ValidateKey checks an idempotency key: to MaxKey bytes of printable ASCII; empty is no key.
// It fails with ErrBadRequest.
func ValidateKey(key string) error {
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' || i >= MaxKey {
			return FieldError(CodeBadRequest, "key", "must be 1 to %d bytes of printable ASCII", MaxKey)
		}
	}
	return nil
}

// A Claim is drivers that are held for somebody.
type Claim struct {
	ID        string
	Drivers   []Driver  // nearest first, each with its distance; as many as there were, at least one
	ExpiresAt time.Time // when they come free by themselves; Redis's clock, to the millisecond
}

// AppendJSON appends c as the contract's object.
func (c *Claim) AppendJSON(dst []byte) []byte {
	dst = AppendString(append(dst, `{"claim":`...), c.ID)
	dst = append(dst, `,"drivers":[`...)
	for i := range c.Drivers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = c.Drivers[i].AppendJSON(dst)
	}
	dst = append(dst, `],"expiresAt":`...)
	dst = strconv.AppendInt(dst, c.ExpiresAt.UnixMilli(), 10)
	return append(dst, '}')
}

// MarshalJSON is AppendJSON for package json.
func (c *Claim) MarshalJSON() ([]byte, error) { return c.AppendJSON(nil), nil }

// UnmarshalJSON reads the contract's object.
func (c *Claim) UnmarshalJSON(b []byte) (err error) {
	var w struct {
		Claim     string         `json:"claim"`
		Drivers   []Driver       `json:"drivers"`
		ExpiresAt jsontext.Value `json:"expiresAt"`
	}
	if err := Unmarshal(b, &w); err != nil {
		return err
	}
	c.ID, c.Drivers = w.Claim, w.Drivers
	c.ExpiresAt, err = wireTime("expiresAt", w.ExpiresAt)
	return err
}
