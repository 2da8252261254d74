package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"dray"
)

// Subprotocol is what a client of this contract offers.
const Subprotocol = "dray.v1.json"

// A CloseError is a connection that the server closed for good.
type CloseError struct {
	Number int    // of RFC 6455, or dray's own from 4000
	Reason string // as the server gave it; may be empty
	Err    error  // the last error that it sent before; may be nil
}

func (e *CloseError) Error() string {
	s := fmt.Sprintf("the server closed the connection (%d)", e.Number)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Err != nil && e.Err.Error() != e.Reason {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap is the error that the server sent, or the one that the number stands for.
func (e *CloseError) Unwrap() error {
	if e.Err != nil {
		return e.Err
	}
	switch e.Number {
	case dray.CloseRevoked, dray.CloseTokenExpiry:
		return dray.ErrUnauthenticated
	case dray.ClosePolicy:
		return dray.ErrForbidden
	case dray.CloseTooBig:
		return dray.ErrTooLarge
	case dray.CloseFlooding:
		return dray.ErrRateLimited
	case dray.CloseUnsupported, dray.CloseNotUTF8:
		return dray.ErrBadRequest
	}
	return nil
}

// conn is one WebSocket of a Client, from its welcome to its end.
type conn struct {
	client  *Client
	ws      *websocket.Conn
	welcome Welcome
	heard   *atomic.Int64 // when anything last came, Unix nanoseconds
	wake    chan struct{} // has room for one: the writer has something to look at
	lost    chan struct{} // closed when the connection is over

	// of read alone, until lost is closed
	lastErr    error         // the last error frame that was nobody's
	retryAfter time.Duration // of goodbye

	mu    sync.Mutex // guards the fields below
	calls map[string]*call
	queue []*call
}

func (cn *conn) wakeWriter() {
	select {
	case cn.wake <- struct{}{}:
	default:
	}
}

// connect makes one attempt, up to the server's welcome.
func (c *Client) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.connectTimeout(), errors.New("the server did not answer in time"))
	defer cancel()
	header := http.Header{}
	if c.cfg.Origin != "" {
		header.Set("Origin", c.cfg.Origin)
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, fmt.Errorf("get a token: %w", err)
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	heard := new(atomic.Int64)
	ws, resp, err := websocket.Dial(ctx, c.cfg.URL, &websocket.DialOptions{
		HTTPClient:   c.http,
		HTTPHeader:   header,
		Subprotocols: []string{Subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			heard.Store(time.Now().UnixNano())
			return true
		},
	})
	if err != nil {
		return nil, c.dialError(ctx, resp, err)
	}
	ws.SetReadLimit(c.cfg.maxFrame())
	cn := &conn{
		client: c, ws: ws, heard: heard,
		wake: make(chan struct{}, 1), lost: make(chan struct{}), calls: map[string]*call{},
	}
	if err := cn.awaitWelcome(ctx); err != nil {
		ws.CloseNow()
		return nil, fmt.Errorf("connect to %s: %w", c.cfg.URL, err)
	}
	return cn, nil
}

func (c *Client) token(ctx context.Context) (string, error) {
	if c.cfg.NewToken != nil {
		return c.cfg.NewToken(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.Token, nil
}

// dialError gives the server's own error where it answered with one.
func (c *Client) dialError(ctx context.Context, resp *http.Response, err error) error {
	if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("connect to %s: %w", c.cfg.URL, problem(resp))
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // the URL is said already, and not as "http://..."
	}
	return fmt.Errorf("connect to %s: %w", c.cfg.URL, err)
}

// problem reads a problem document (RFC 9457), of which only the head may be there.
func problem(resp *http.Response) *dray.Error {
	var p struct {
		Code         dray.Code `json:"code"`
		Detail       string    `json:"detail"`
		RetryAfterMs int64     `json:"retryAfterMs"`
	}
	body, _ := io.ReadAll(resp.Body)
	if err := dray.Unmarshal(body, &p); err == nil && p.Code != "" {
		return &dray.Error{Code: p.Code, Message: p.Detail, RetryAfter: time.Duration(p.RetryAfterMs) * time.Millisecond}
	}
	code := dray.CodeUnavailable // some proxy's word: may pass
	if resp.StatusCode < 500 {
		code = dray.CodeBadRequest
		for _, c := range []dray.Code{dray.CodeUnauthenticated, dray.CodeForbidden, dray.CodeNotFound, dray.CodeRateLimited} {
			if c.Status() == resp.StatusCode {
				code = c
			}
		}
	}
	return dray.Errorf(code, "the server answered %s, not with a WebSocket", resp.Status)
}

func (cn *conn) awaitWelcome(ctx context.Context) error {
	_, b, err := cn.ws.Read(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return cn.closeError(err)
	}
	var f frame
	if err := f.decode(b, nil); err != nil {
		return fmt.Errorf("first message: %w", err)
	}
	switch f.Type {
	case "welcome":
		cn.welcome = f.welcome()
		return nil
	case "error":
		return f.err()
	}
	return dray.Errorf(dray.CodeBadRequest, "first message is %q, not a welcome", f.Type)
}

// serve runs a connection until it is over, and returns why.
func (cn *conn) serve(ctx context.Context) error {
	var wg sync.WaitGroup
	// The reader goes on during the closing handshake, so it does not hang on ctx.
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var err error
	wg.Go(func() {
		err = cn.read(reading)
		close(cn.lost)
	})
	wg.Go(func() { cn.write(reading) })
	wg.Go(func() { cn.watch(reading) })
	select {
	case <-cn.lost:
	case <-ctx.Done():
		patience := time.AfterFunc(time.Second, func() { cn.ws.CloseNow() })
		cn.ws.Close(websocket.StatusNormalClosure, "")
		patience.Stop()
	}
	stop()
	cn.ws.CloseNow()
	wg.Wait()
	return err
}

// read hands every frame to where it belongs, until the connection is over.
func (cn *conn) read(ctx context.Context) error {
	var f frame
	var seen interned
	var buf bytes.Buffer
	for {
		kind, r, err := cn.ws.Reader(ctx)
		if err == nil {
			buf.Reset()
			_, err = buf.ReadFrom(r)
		}
		if err != nil {
			return cn.closeError(err)
		}
		cn.heard.Store(time.Now().UnixNano())
		if kind != websocket.MessageText {
			continue
		}
		if err := f.decode(buf.Bytes(), &seen); err != nil {
			cn.ws.Close(websocket.StatusInvalidFramePayloadData, "not JSON of the contract")
			return fmt.Errorf("message from the server: %w", err)
		}
		cn.dispatch(&f)
		if buf.Cap() > 1<<20 {
			buf = bytes.Buffer{} // one large snapshot is no reason to hold its room for ever
		}
	}
}

func (cn *conn) dispatch(f *frame) {
	c := cn.client
	switch f.Type {
	case "ack":
		c.acked(f.Seq)
	case "snapshot", "delta":
		c.mu.Lock()
		s := c.subs[string(f.ID)]
		c.mu.Unlock()
		if s != nil {
			s.apply(f)
		}
		if f.Type == "snapshot" {
			cn.answered(f.ID, true, answer{})
		}
	case "ok", "result":
		a := answer{frame: *f}
		cn.answered(f.ID, false, a)
		*f = frame{} // its slices are the caller's now
	case "error":
		err := f.err()
		switch {
		case len(f.ID) > 0 && cn.answered(f.ID, false, answer{err: err}):
		case len(f.ID) > 0 && cn.subscriptionFailed(string(f.ID), err):
		case f.Seq > 0:
			c.refused(f.Seq, err)
		case len(f.ID) > 0: // of a call that was given up
			c.cfg.Logger.Debug("error from the server that nobody waits for", "code", err.Code, "error", err)
		default:
			cn.lastErr = err
			c.cfg.Logger.Warn("error from the server", "code", err.Code, "error", err)
		}
	case "goodbye":
		cn.retryAfter = time.Duration(f.RetryAfterMs) * time.Millisecond
	}
}

// closeError makes of err, which a read gave, why the connection is over: a *CloseError
// where the server closed it.
func (cn *conn) closeError(err error) error {
	if ce, ok := errors.AsType[websocket.CloseError](err); ok {
		return &CloseError{Number: int(ce.Code), Reason: ce.Reason, Err: cn.lastErr}
	}
	return fmt.Errorf("connection lost: %w", err)
}

// write sends calls and positions as they come. told is what this connection knows of
// each driver's attributes.
func (cn *conn) write(ctx context.Context) {
	c := cn.client
	told := map[string]map[string]string{} // driver -> attributes
	pace := newPace(cn.welcome.Limits.MessagesPerSecond)
	var buf []byte
	for {
		c.mu.Lock()
		sent := c.window.sent
		c.mu.Unlock()
		var message []byte
		if cl := cn.nextCall(sent); cl != nil {
			for _, driver := range cl.drivers {
				delete(told, driver)
			}
			message = cl.message
		} else if seq, p, ok := cn.nextPosition(); ok {
			if known, ok := told[p.Driver]; ok && maps.Equal(known, p.Attributes) {
				p.Attributes = nil
			} else if p.Attributes != nil {
				told[p.Driver] = p.Attributes
			}
			buf = appendPosition(buf[:0], seq, &p)
			message = buf
		} else {
			select {
			case <-cn.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if !pace.wait(ctx, len(message)) {
			return
		}
		deadline, cancel := context.WithTimeout(ctx, c.cfg.writeTimeout())
		err := cn.ws.Write(deadline, websocket.MessageText, message)
		cancel()
		if err != nil {
			cn.ws.CloseNow() // the reader tells why
			return
		}
	}
}

func (cn *conn) nextPosition() (uint64, dray.Position, bool) {
	cn.client.mu.Lock()
	defer cn.client.mu.Unlock()
	return cn.client.window.next()
}

// watch ends a connection whose server neither sends nor answers a ping.
func (cn *conn) watch(ctx context.Context) {
	every := orDefault(cn.welcome.Heartbeat, 15*time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if time.Since(time.Unix(0, cn.heard.Load())) < every {
			continue
		}
		ping, cancel := context.WithTimeout(ctx, every)
		err := cn.ws.Ping(ping)
		cancel()
		if err != nil {
			cn.ws.CloseNow()
			return
		}
	}
}
