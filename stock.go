package dray

import "time"

// Limits of the inventory.
const (
	DefaultLocation = "default" // where stock is that names no location
	MaxQuantity     = 1_000_000_000
	MaxLines        = 100 // lines of a cart
	MaxHold         = 24 * time.Hour
	DefaultHold     = 10 * time.Minute
	MaxKey          = 255 // bytes of an idempotency key, printable ASCII
	MaxReason       = 256 // bytes of UTF-8 in one line
	MaxReplicas     = 16  // that a request may demand
)

// Stock is what a location has of one SKU.
type Stock struct {
	Location    string
	SKU         string
	Quantity    int64     // units on hand, held ones included
	Reserved    int64     // units held
	Available   int64     // Quantity - Reserved, never below 0
	Version     int64     // grows with every change; the number of its ledger entry
	LastUpdated time.Time // of Redis, kept to the millisecond
}

// A StockEvent tells a watcher that what is available of a SKU crossed a threshold between two
// frames of its subscription: what happened and was undone between them is not told.
type StockEvent struct {
	SKU       string         `json:"sku"`
	Event     StockEventKind `json:"event"`
	Available int64          `json:"available"` // now
}

// A StockEventKind is which threshold was crossed.
type StockEventKind string

// The events of the contract.
const (
	StockLow  StockEventKind = "low"  // fell to StockShape.Low or below, but not to 0
	StockOut  StockEventKind = "out"  // fell to 0
	StockBack StockEventKind = "back" // rose from 0
)

// StockCrossing is the event of a change from before to after available units, where low is the
// threshold of StockLow, or 0; false for none.
func StockCrossing(before, after, low int64) (StockEventKind, bool) {
	switch {
	case before > 0 && after == 0:
		return StockOut, true
	case before == 0 && after > 0:
		return StockBack, true
	case before > low && after <= low && after > 0:
		return StockLow, true
	}
	return "", false
}

// A StockLeave tells that a subscription's shape names a SKU no longer. Its reason is LeftShape.
type StockLeave struct {
	SKU    string      `json:"sku"`
	Reason LeaveReason `json:"reason"`
}

// An Item is one line of a cart: 1 to MaxQuantity units of a SKU.
type Item struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// A ReservedItem is one line of a reservation. Units that are neither committed nor released
// are held while the reservation is.
type ReservedItem struct {
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	Committed int64  `json:"committed"`
	Released  int64  `json:"released"` // also by expiry
}

// A ReservationStatus is held until every unit is resolved, then committed if any unit was,
// else released or expired.
type ReservationStatus string

// The statuses of the contract.
const (
	StatusHeld      ReservationStatus = "held"
	StatusCommitted ReservationStatus = "committed"
	StatusReleased  ReservationStatus = "released"
	StatusExpired   ReservationStatus = "expired"
)

// A Reservation holds units of stock until it is committed or released, or expires.
type Reservation struct {
	Reservation string // its id
	Location    string
	Status      ReservationStatus
	Items       []ReservedItem // by SKU
	ExpiresAt   time.Time      // of Redis; zero for one that does not expire
	Replicas    int            // how many replicas have confirmed what this answer tells; 0 is "memory" on the wire
	Distance    float64        // metres, in the answer to a reservation near a place; NaN otherwise
}

// A LedgerKind is why stock changed.
type LedgerKind string

// The kinds of the contract.
const (
	LedgerSet     LedgerKind = "set"
	LedgerAdjust  LedgerKind = "adjust"
	LedgerHold    LedgerKind = "hold"
	LedgerCommit  LedgerKind = "commit"
	LedgerRelease LedgerKind = "release"
	LedgerExpire  LedgerKind = "expire"
)

// A Step is a number before and after a change.
type Step struct {
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// A LedgerEntry is one change of one SKU at one location. It never changes.
type LedgerEntry struct {
	Entry       int64 // its number: entries of a location are numbered without gaps
	At          time.Time
	Location    string
	SKU         string
	Kind        LedgerKind
	Quantity    Step
	Reserved    Step
	Reservation string // "" where there is none
	Reason      string
	By          string // who asked for it; "" when unknown, or nobody
}

// Durability is how far a change had come when it was answered.
type Durability struct {
	Level    string `json:"level"` // "memory" or "replicated"
	Replicas int    `json:"replicas"`
}

// Durability tells r.Replicas as the wire does.
func (r *Reservation) Durability() Durability {
	if r.Replicas > 0 {
		return Durability{"replicated", r.Replicas}
	}
	return Durability{"memory", 0}
}
