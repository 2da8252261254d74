package httpapi

import "net/http"

// A Caller is who sent a request or opened a connection, and what that one may do.
//
// Until there is authentication everybody is the anonymous caller, who may do all;
// CheckListen keeps such a server on the loopback.
type Caller struct{ all bool }

// anonymous may do all.
var anonymous = Caller{all: true}

// MayPublish tells whether the caller may report positions of driver and take it offline.
func (c Caller) MayPublish(driver string) bool { return c.all }

// MayWatch tells whether the caller may see where drivers are.
func (c Caller) MayWatch() bool { return c.all }

// caller names who sent r.
func (s *Server) caller(r *http.Request) (Caller, error) { return anonymous, nil }
