package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"

	"dray"
)

// originAllowed tells whether the page that sent r, if a page did, is of this host or of an
// allowed one.
func (s *Server) originAllowed(r *http.Request) bool {
	origin := r.Header.Values("Origin")
	if len(origin) == 0 {
		return true
	}
	scheme, host, ok := strings.Cut(strings.ToLower(origin[0]), "://")
	if len(origin) > 1 || !ok || host == "" {
		return false
	}
	if host == strings.ToLower(r.Host) {
		return true
	}
	return slices.ContainsFunc(s.cfg.AllowedOrigins, func(allowed string) bool {
		allowed = strings.ToLower(allowed)
		is := host
		if strings.Contains(allowed, "://") {
			is = scheme + "://" + host
		}
		match, err := path.Match(allowed, is)
		return err == nil && match
	})
}

// hostAllowed tells whether r asks for this server by one of its names. A page can have its
// own site's name resolve to a loopback address and is then, to the browser, of the same
// origin as what answers there; but the Host it sends is still its own. While everybody is the
// anonymous caller, that is all that keeps pages away.
func (s *Server) hostAllowed(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !loopback(hostname(local.String())) {
		return true
	}
	host := hostname(strings.ToLower(r.Host))
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || loopback(host) {
		return true // no browser leaves the Host out
	}
	is := func(allowed string) bool {
		match, err := path.Match(strings.ToLower(allowed), host)
		return err == nil && match
	}
	return slices.ContainsFunc(s.cfg.AllowedHosts, is) || slices.ContainsFunc(s.cfg.AllowedOrigins, func(origin string) bool {
		if _, after, ok := strings.Cut(origin, "://"); ok {
			origin = after
		}
		return is(hostname(origin))
	})
}

// hostname is host without its port and the brackets of IPv6.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// admit decides whose pages may call, before any route: it answers what it refuses, and
// preflights, and then returns false.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) bool {
	if !s.hostAllowed(r) {
		s.problem(w, dray.Errorf(dray.CodeForbidden, "this server is not called by this Host"))
		return false
	}
	h := w.Header()
	h.Set("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if !s.originAllowed(r) {
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
			s.problem(w, dray.Errorf(dray.CodeForbidden, "pages of this Origin may not call"))
			return false
		}
		return true // what comes back the page can't read
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "ETag, Location, Retry-After, "+requestIDHeader)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return true
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, If-None-Match, "+keyHeader)
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return false
}
