package httpapi

import (
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/coder/websocket"

	"dray"
)

// subprotocol is the one subprotocol of the contract.
const subprotocol = "dray.v1.json"

// openSocket is GET /v1/ws.
func (s *Server) openSocket(w http.ResponseWriter, r *http.Request) {
	if err := s.mayOpen(r); err != nil {
		s.problem(w, err)
		return
	}
	who, err := s.caller(r)
	if err != nil {
		s.problem(w, err)
		return
	}
	from := addressOf(r)
	if err := s.enter(from); err != nil {
		s.problem(w, err)
		return
	}
	c := &conn{s: s, name: newID(), from: from, caller: who, lastSeq: -1, acked: -1, window: newWindow()}
	c.room.L = &c.mu
	c.decoder.memory.budget = &s.remembered
	now := s.cfg.Now()
	c.throttle = newThrottle(s.cfg.MessagesPerSecond, s.cfg.MessageBurst)
	c.wire = &wire{conn: c, extra: newBucket(extraFrames, extraBurst)}
	c.wire.heard.Store(now.UnixNano())
	c.wrote.Store(now.UnixNano())
	tap := &tap{ResponseWriter: w, wire: c.wire}
	// The origin was checked above; what the library would write on a refusal is no problem document.
	c.ws, err = websocket.Accept(tap, r, &websocket.AcceptOptions{
		Subprotocols: []string{subprotocol}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		s.leave(c)
		return
	}
	c.in = tap.in
	c.ws.SetReadLimit(int64(s.cfg.MaxMessageBytes))
	limitSendBuffer(c.wire.Conn)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if !s.join(c) {
		c.end(dray.CloseRestart, "draining")
	}
	c.welcome(now)
	// A goroutine of its own lets go of the request and of what net/http keeps with it.
	go c.serve()
}

// mayOpen refuses what no WebSocket of ours can come of.
func (s *Server) mayOpen(r *http.Request) error {
	if !s.originAllowed(r) {
		return dray.Errorf(dray.CodeForbidden, "pages of this Origin may not connect")
	}
	if !headerHas(r.Header, "Connection", "upgrade") || !headerHas(r.Header, "Upgrade", "websocket") {
		return dray.Errorf(dray.CodeBadRequest, "this is a WebSocket: the request must ask for an upgrade")
	}
	if r.Header.Get("Sec-WebSocket-Version") != "13" {
		return dray.FieldError(dray.CodeBadRequest, "Sec-WebSocket-Version", "must be 13")
	}
	if key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key")); err != nil || len(key) != 16 || len(r.Header.Values("Sec-WebSocket-Key")) > 1 {
		return dray.FieldError(dray.CodeBadRequest, "Sec-WebSocket-Key", "must be 16 bytes in base64")
	}
	if offered := r.Header["Sec-Websocket-Protocol"]; len(offered) > 0 && !headerHas(r.Header, "Sec-WebSocket-Protocol", subprotocol) {
		return dray.Errorf(dray.CodeBadRequest, "the subprotocol is %s", subprotocol)
	}
	return nil
}

// headerHas tells whether a header that is a list has this token, in whatever case.
func headerHas(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

func limitSendBuffer(nc net.Conn) {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = t.NetConn()
	}
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetWriteBuffer(sendBuffer) // a smaller one is as good
	}
}

// addressOf is whose connection counts as whose: an IPv4 address, or a /64 of IPv6, which is
// what one subscriber is given. It is invalid for a loopback address and for what is none:
// these are not counted. What a proxy says of its caller is not looked at.
func addressOf(r *http.Request) netip.Prefix {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	ip := peer.Addr().Unmap().WithZone("")
	if err != nil || ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.Prefix(bits)
	return prefix
}

// enter takes a place for a connection, if there is one. leave gives it back.
func (s *Server) enter(from netip.Prefix) error {
	s.mu.Lock()
	full := s.draining.Load() || s.taken >= s.cfg.MaxConnections
	crowded := from.IsValid() && s.cfg.MaxConnectionsPerIP > 0 && s.callers[from] >= s.cfg.MaxConnectionsPerIP
	if !full && !crowded {
		s.taken++
		if from.IsValid() {
			s.callers[from]++
		}
		s.serving.Add(1)
	}
	s.mu.Unlock()
	switch {
	case full:
		return &dray.Error{Code: dray.CodeUnavailable, Message: "no more connections here now", RetryAfter: s.spread()}
	case crowded:
		return &dray.Error{Code: dray.CodeRateLimited, Message: "no more connections from your address now", RetryAfter: s.spread()}
	}
	s.m.connections.Inc()
	return nil
}

// join makes c known to the sweep and the drain; false when the drain has begun.
func (s *Server) join(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return !s.draining.Load()
}

// leave gives the place of c back, also when it did not come to a connection.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.taken--
	if c.from.IsValid() {
		if s.callers[c.from]--; s.callers[c.from] == 0 {
			delete(s.callers, c.from)
		}
	}
	s.mu.Unlock()
	s.m.connections.Dec()
	s.serving.Done()
}

// welcome is the first frame.
func (c *conn) welcome(now time.Time) {
	cfg := &c.s.cfg
	c.answer(frameWelcome, func(b []byte) []byte {
		b = append(b, `{"type":"welcome","connection":`...)
		b = dray.AppendString(b, c.name)
		b = appendInt(b, `,"serverTime":`, now.UnixMilli())
		b = appendInt(b, `,"heartbeatMs":`, cfg.Heartbeat.Milliseconds())
		b = appendInt(b, `,"limits":{"maxMessageBytes":`, int64(cfg.MaxMessageBytes))
		b = appendInt(b, `,"maxPositions":`, dray.MaxPositions)
		b = appendInt(b, `,"maxSubscriptions":`, int64(cfg.MaxSubscriptions))
		b = appendInt(b, `,"maxRadius":`, int64(dray.MaxRadius))
		b = appendInt(b, `,"messagesPerSecond":`, int64(cfg.MessagesPerSecond))
		return append(b, "}}"...)
	})
}
