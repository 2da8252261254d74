package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"dray"
)

const (
	ackEvery      = 250 * time.Millisecond // at most one ack
	maxQueued     = 64 << 10               // bytes of answers; at that the connection is not read
	writeSize     = 32 << 10               // bytes after which no more is gathered into one write, and a message goes on in another frame
	sendBuffer    = 64 << 10               // of the socket: what a stalled reader pins in the kernel
	closeWait     = 5 * time.Second        // for a close frame to be written, then for the client to go
	silentWait    = 500 * time.Millisecond // for a client that has been silent
	maxBad        = 20                     // messages that are not of the contract's form
	badEvery      = time.Minute            // in which they are counted
	keptBuffer    = 64 << 10               // bytes; larger read and write buffers are not kept
	firstBuffer   = 4 << 10                // bytes
	takenSize     = 8 * sendBuffer         // of one message: when so much was written some of it was taken
	keptFragments = 4096                   // of a change; a writer keeps no longer lists
	settleOnExit  = 2 * time.Second        // for positions on their way when the server drains
)

// A conn is one WebSocket client.
//
//	serve            one client, until it leaves, is closed, or the server drains
//	├ readLoop       owns reads
//	│ ├ admit        the budget of messages: waits, then refuses, then closes
//	│ └ handle       one message, after the one before
//	│   ├ decode     bytes -> message; the only parser of client bytes
//	│   ├ dispatch   message.typ -> handler -> answer or error frame
//	│   │ └ ask      begins an askNow, which waits for the stock and answers; a bounded number at once
//	│   └ yield      waits while the queue of answers is full
//	├ Reported       from any goroutine: settles positions, then an ok, an error, an ack may be due
//	├ due            from any goroutine: a subscription has something to say
//	├ check          from the sweep: pings, and ends who takes nothing or says nothing
//	└ writeLoop      runs while there is something to write; owns all writes, the close frame last
//	  ├ gather       answers, pong, ping, ack, and the next due subscription's message, a piece at a time
//	  └ write        in pieces, each of which the client must take in time
type conn struct {
	s      *Server
	name   string       // shown in welcome and in the log
	from   netip.Prefix // what it counts for; invalid where it does not
	wire   *wire
	ws     *websocket.Conn
	in     *bufio.Reader
	caller Caller
	ctx    context.Context // ends when the connection does
	cancel context.CancelFunc

	// The reader's own.
	decoder  decoder
	message  message
	lastSeq  int64
	throttle throttle
	bad      strikes

	handling atomic.Bool  // a message is being handled, so silence is not the client's
	writing  atomic.Int64 // Unix nanoseconds since when a piece is being written; 0 when none is
	wrote    atomic.Int64 // Unix nanoseconds of the last piece written

	pinged time.Time // the sweep's own: when it last had a ping sent

	writers sync.WaitGroup // the writeLoop, while it runs
	asks    sync.WaitGroup // what asks the stock

	mu        sync.Mutex // guards the fields below
	out       []byte     // frames of answers
	pong      []byte     // payload of the last ping not yet answered; nil when none
	pingDue   bool
	window    window
	acked     int64           // seq of the last ack sent; -1 when none
	ackedAt   time.Time       // when
	ackDue    bool            // an ack may be sent now
	ackTimer  *time.Timer     // makes the next ack due; nil when none was ever needed
	ackTimed  bool            // it runs
	asking    int             // asks under way
	subs      map[string]*sub // idKey of its id -> a subscription
	dueSubs   []*sub
	writer    bool      // somebody writes: the writeLoop, or the reader
	room      sync.Cond // on mu: out, window or asking have emptied somewhat, or the connection ends
	leaving   bool      // the server drains: nothing more is read
	ended     bool      // nothing more is taken in or answered
	last      []byte    // payload of the close frame to write; nil when there is none
	lastSent  bool      // it was written
	abandoned bool      // a write failed: there is nobody to write to
}

func (c *conn) serve() {
	defer c.s.leave(c)
	c.flush() // the welcome
	err := c.readLoop()
	c.decoder.memory.forget() // while it lingers it needs none
	c.decoder, c.message = decoder{}, message{}
	if c.s.draining.Load() {
		c.bye()
	}
	code, reason := closeFor(err)
	c.end(code, reason)
	c.writers.Wait()
	c.cancel()
	c.asks.Wait()
	c.mu.Lock()
	subs := c.subs
	c.subs, c.dueSubs = nil, nil
	if c.ackTimer != nil {
		c.ackTimer.Stop()
	}
	var linger time.Duration
	if c.lastSent {
		linger = closeWait
		if string(c.last[:min(2, len(c.last))]) == string(closePayload(dray.CloseTooSlow, "")) {
			linger = silentWait // most likely there is nobody
		}
	}
	c.mu.Unlock()
	for _, sub := range subs {
		sub.s.Close()
	}
	c.s.m.subscriptions.Sub(float64(len(subs)))
	if linger > 0 {
		c.linger(linger)
	}
	c.wire.Conn.Close()
	c.ws.CloseNow()
}

// linger lets the client read the close frame: a socket that is closed while bytes of the
// client are unread sends a reset, which overtakes what was written.
func (c *conn) linger(most time.Duration) {
	if half, ok := c.wire.Conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	c.wire.SetReadDeadline(time.Now().Add(most))
	io.Copy(io.Discard, io.LimitReader(c.wire.Conn, 16<<20))
}

// closeFor is the close number for what ended the reading; 0 when the client has gone, or
// was told by the library.
func closeFor(err error) (code int, reason string) {
	switch {
	case errors.Is(err, errNotUTF8):
		return dray.CloseNotUTF8, "not UTF-8"
	case errors.Is(err, errBinary):
		return dray.CloseUnsupported, "binary frames are not taken"
	case errors.Is(err, errFlooding):
		return dray.CloseFlooding, "kept sending while refused"
	case errors.Is(err, errTooManyBad):
		return dray.ClosePolicy, "too many bad requests"
	case errors.Is(err, errPanic):
		return dray.CloseInternal, "internal error"
	}
	return 0, ""
}

// What ends a connection from our side, as errors of readLoop.
var (
	errBinary     = errors.New("httpapi: binary frame")
	errFlooding   = errors.New("httpapi: client was refused and went on")
	errTooManyBad = errors.New("httpapi: too many bad requests")
	errPanic      = errors.New("httpapi: handler panicked")
)

// end takes nothing more in and has the close frame written, then the connection ends;
// code 0 writes none. Only the first call counts. Safe from any goroutine; never blocks.
func (c *conn) end(code int, reason string) {
	var payload []byte
	if code != 0 {
		payload = closePayload(code, reason)
	}
	c.mu.Lock()
	c.endLocked(payload)
	c.mu.Unlock()
}

func (c *conn) endLocked(last []byte) {
	if c.ended {
		return
	}
	c.ended, c.last = true, last
	if last != nil {
		c.s.m.closed(last)
		c.kickLocked()
	}
	now := time.Now()           // not Config.Now: the kernel's clock counts
	c.wire.SetReadDeadline(now) // wakes the reader
	c.wire.SetWriteDeadline(now.Add(closeWait))
	c.room.Broadcast()
	if c.cancel != nil {
		c.cancel()
	}
}

// drop ends the connection at once, telling nobody; the kernel lets go of what it still holds.
func (c *conn) drop() {
	c.end(0, "")
	c.wire.SetWriteDeadline(time.Now())
	if t, ok := c.wire.Conn.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
}

// control takes the control frames that the library answers with. Only the last ping need
// be answered (RFC 6455, section 5.5.3), so nothing piles up.
func (c *conn) control(frame []byte) {
	if len(frame) < 2 || len(frame)-2 > 125 {
		return
	}
	payload := frame[2:]
	c.mu.Lock()
	defer c.mu.Unlock()
	switch frame[0] & 0xf {
	case opPong:
		c.pong = append(make([]byte, 0, 8), payload...)
		c.kickLocked()
	case opClose:
		if !validClose(payload) {
			payload = closePayload(dray.CloseNotUTF8, "reason is not UTF-8")
		}
		if bytes.HasPrefix(payload, closePayload(dray.CloseTooBig, "")) {
			payload = closePayload(dray.CloseTooBig, fmt.Sprintf("message over %d bytes", c.s.cfg.MaxMessageBytes))
		}
		c.endLocked(append(make([]byte, 0, 8), payload...))
	}
}

// readLoop reads messages until the connection ends.
func (c *conn) readLoop() error {
	for {
		// No deadline, no cancel: the library would make a timer for each call. The sweep,
		// and end, stop a read through the socket.
		typ, r, err := c.ws.Reader(context.Background())
		if err != nil {
			return err
		}
		if typ != websocket.MessageText {
			return errBinary
		}
		buf := c.s.buffers.Get().(*[]byte)
		*buf, err = readMessage(r, (*buf)[:0])
		if err == nil {
			c.handling.Store(true)
			err = c.handle(*buf)
			c.handling.Store(false)
		}
		if cap(*buf) <= keptBuffer {
			c.s.buffers.Put(buf)
		}
		if err != nil {
			return err
		}
	}
}

// readMessage appends the message to b, which grows only as bytes come in.
func readMessage(r io.Reader, b []byte) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

func appendInt(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(b, name...), n, 10)
}
