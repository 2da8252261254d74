// Package client is a Go client of dray's wire contract. A [Client] keeps one WebSocket
// open, comes back after it is lost, and then goes on as if nothing had happened: positions
// that were not acknowledged are sent again, subscriptions are taken out again.
//
// Failures that the server names come back as [*dray.Error], so that
// errors.Is(err, dray.ErrTooLarge) holds here as it does there.
package client

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Config configures a Client. URL is required.
type Config struct {
	URL   string // ws://host:port/v1/ws, or wss://
	Token string // sent as "Authorization: Bearer"; empty sends none

	// NewToken, where it is set, is asked for a token before each connection, instead of
	// Token. With it a Client outlives its tokens (close number 4001).
	NewToken func(ctx context.Context) (string, error)

	Origin     string       // the Origin header; empty sends none
	HTTPClient *http.Client // for the handshake; nil makes one
	Logger     *slog.Logger // nil: slog.Default()

	// Window is how many reported positions may wait for their acknowledgement. At the
	// bound Report waits. Zero means 1024.
	Window int
	// Refused is told of each reported position that the server did not take. It must
	// return soon and must not call the Client. Nil logs them.
	Refused func(Refusal)

	MinBackoff     time.Duration // before the first attempt to reconnect; zero means 250 ms
	MaxBackoff     time.Duration // the back-off doubles up to this; zero means 15 s
	ConnectTimeout time.Duration // of one attempt, up to the server's welcome; zero means 10 s
	WriteTimeout   time.Duration // of one message; zero means 10 s

	// MaxFrame bounds one message of the server in bytes. Zero means 64 MiB.
	MaxFrame int64

	// OnStatus is told when the connection comes and goes. It must return soon and must not
	// call the Client.
	OnStatus func(Status)

	// Strict checks what the contract promises of every subscription, at some cost in
	// memory, and tells OnViolation where the server broke it. It must return soon.
	Strict      bool
	OnViolation func(error)
}

func (c Config) window() int                   { return orDefault(c.Window, 1024) }
func (c Config) minBackoff() time.Duration     { return orDefault(c.MinBackoff, 250*time.Millisecond) }
func (c Config) maxBackoff() time.Duration     { return orDefault(c.MaxBackoff, 15*time.Second) }
func (c Config) connectTimeout() time.Duration { return orDefault(c.ConnectTimeout, 10*time.Second) }
func (c Config) writeTimeout() time.Duration   { return orDefault(c.WriteTimeout, 10*time.Second) }
func (c Config) maxFrame() int64               { return orDefault(c.MaxFrame, 64<<20) }

func orDefault[T int | int64 | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// A Status is the state of a Client's connection.
type Status struct {
	Connected bool
	Welcome   Welcome       // of a connection that came
	Err       error         // why there is none
	RetryIn   time.Duration // until the next attempt
}

// A Welcome is what the server says of a new connection.
type Welcome struct {
	Connection string
	ServerTime time.Time
	Heartbeat  time.Duration
	Limits     Limits
}

// Limits are the server's bounds on one connection; 0 where it names none.
type Limits struct {
	MaxMessageBytes   int     `json:"maxMessageBytes"`
	MaxPositions      int     `json:"maxPositions"`
	MaxSubscriptions  int     `json:"maxSubscriptions"`
	MaxRadius         float64 `json:"maxRadius"`
	MessagesPerSecond float64 `json:"messagesPerSecond"`
}

// ErrClosed is what every call returns after Close.
var ErrClosed = errors.New("client is closed")

// A Client is one caller of a dray server. Safe for concurrent use.
//
//	run              connects, waits, comes back with back-off, until the Client ends
//	├ conn.read      owns reads: decodes each frame and hands it to its call, to the window
//	│                of positions or to its subscription; none of them blocks
//	├ conn.write     owns writes: calls first, then positions of the window
//	└ conn.watch     pings a server that has gone quiet
//	keep             one for each subscription: takes it out again after each reconnect
type Client struct {
	cfg    Config
	http   *http.Client
	ctx    context.Context // ends, with the reason as its cause, when the Client does
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // run and every keep

	mu      sync.Mutex    // guards the fields below
	conn    *conn         // nil while there is no connection
	err     error         // why the Client ended; nil while it has not
	changed chan struct{} // closed, and made anew, when conn, err or window changes for a waiter
	lastID  uint64
	subs    map[string]*Subscription // id -> live subscription
	window  window
}

// Dial connects to the server at cfg.URL and returns once it has said welcome. It tries
// once; only connections lost later are made again. A refusal of the server is a
// [*dray.Error] (401 is dray.ErrUnauthenticated) or a [*CloseError]. ctx bounds Dial only.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	c := &Client{
		cfg:     cfg,
		http:    cfg.HTTPClient,
		changed: make(chan struct{}),
		subs:    map[string]*Subscription{},
		window:  window{first: 1, attributes: map[string]map[string]string{}},
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	if c.http == nil {
		c.http = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	cn, err := c.connect(ctx)
	if err != nil {
		c.cancel(err)
		c.closeIdle()
		return nil, err
	}
	c.wg.Go(func() { c.run(c.ctx, cn) })
	return c, nil
}

// Close ends the Client and waits for its goroutines. Positions that were not acknowledged
// may be lost: [Client.Flush] first where that matters. Subscriptions end with ErrClosed.
func (c *Client) Close() error {
	c.end(ErrClosed)
	c.wg.Wait()
	c.closeIdle()
	return nil
}

// Err is why the Client ended, nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Welcome is what the server said of the present connection; false while there is none.
func (c *Client) Welcome() (Welcome, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return Welcome{}, false
	}
	return c.conn.welcome, true
}

// end makes err the reason why every call fails from now on, unless there is one already.
func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.cancel(err)
		c.changedLocked()
	}
}

func (c *Client) changedLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// await returns the connection, waiting for one while there is none.
func (c *Client) await(ctx context.Context) (*conn, error) {
	for {
		c.mu.Lock()
		cn, err, changed := c.conn, c.err, c.changed
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if cn != nil {
			return cn, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (c *Client) closeIdle() {
	if c.cfg.HTTPClient == nil {
		c.http.CloseIdleConnections()
	}
}
