package redistest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray/redisconn"
)

// A Proxy stands between a client and a server, and is as unreliable as a test wants.
type Proxy struct {
	listener net.Listener
	wg       sync.WaitGroup
	replies  atomic.Int32 // a Fate
	delay    atomic.Int64 // nanoseconds before each piece of a reply
	lost     atomic.Int64 // pieces of replies that did not pass

	mu     sync.Mutex // guards the fields below
	target string
	conns  map[net.Conn]struct{}
	closed bool
}

// A Fate is what happens to replies. Requests always pass.
type Fate int32

// What can happen to a reply.
const (
	Pass Fate = iota
	Drop      // it vanishes; the connection stays and is silent
	Cut       // it vanishes and the connection ends
)

// NewProxy makes a proxy in front of s, to be used in its place.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	p := newProxy(t)
	p.to(s.Addr())
	t.Cleanup(p.close)
	return p
}

func newProxy(t testing.TB) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	p := &Proxy{listener: l, conns: map[net.Conn]struct{}{}}
	p.wg.Go(p.serve)
	return p
}

func (p *Proxy) to(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Node is the proxy's own address.
func (p *Proxy) Node() redisconn.Node {
	return redisconn.Node{Host: "127.0.0.1", Port: p.listener.Addr().(*net.TCPAddr).Port}
}

// Replies sets the fate of all replies from now on.
func (p *Proxy) Replies(f Fate) { p.replies.Store(int32(f)) }

// Delay holds each reply back.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// Lost counts the replies, or pieces of them, that were dropped or cut.
func (p *Proxy) Lost() int { return int(p.lost.Load()) }

// CutAll ends all connections that are open now.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.CutAll()
	p.wg.Wait()
}

func (p *Proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := net.DialTimeout("tcp", target, time.Second)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.keep(client, server) {
			return
		}
		p.wg.Go(func() { p.copy(server, client, false) })
		p.wg.Go(func() { p.copy(client, server, true) })
	}
}

func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.closed {
			_ = c.Close()
		} else {
			p.conns[c] = struct{}{}
		}
	}
	return !p.closed
}

// copy moves bytes until either side ends, and then ends both.
func (p *Proxy) copy(to, from net.Conn, replies bool) {
	defer func() {
		_, _ = to.Close(), from.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, to)
		delete(p.conns, from)
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if replies {
			time.Sleep(time.Duration(p.delay.Load()))
			switch Fate(p.replies.Load()) {
			case Drop:
				p.lost.Add(1)
				continue
			case Cut:
				p.lost.Add(1)
				return
			}
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
