package httpapi

import "net/http"

// A Caller is who sent a request or opened a connection, and what that one may do.
//
// Until there is authentication everybody is the anonymous caller, who may do all;
// CheckListen keeps such a server on the loopback.
type Caller struct {
	all  bool
	name string // see Name
}

// anonymous may do all.
var anonymous = Caller{all: true}

// MayPublish tells whether the caller may report positions of driver and take it offline.
func (c Caller) MayPublish(driver string) bool { return c.all }

// MayWatch tells whether the caller may see where drivers are.
func (c Caller) MayWatch() bool { return c.all }

// MaySeeStock tells whether the caller may see stock and its ledger.
func (c Caller) MaySeeStock() bool { return c.all }

// MaySetStock tells whether the caller may set and adjust stock.
func (c Caller) MaySetStock() bool { return c.all }

// MayReserve tells whether the caller may reserve stock, and see and resolve reservations.
func (c Caller) MayReserve() bool { return c.all }

// Name is who the caller is, for the ledger and as the owner of idempotency keys; "" for the
// anonymous caller.
func (c Caller) Name() string { return c.name }

// MayClaim tells whether the caller may hold drivers and give them back.
func (c Caller) MayClaim() bool { return c.all }

// caller names who sent r.
func (s *Server) caller(r *http.Request) (Caller, error) { return anonymous, nil }
