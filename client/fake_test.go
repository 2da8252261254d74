package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dray"
	"dray/client"
	"dray/redisconn/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

const welcome = `{"type":"welcome","connection":"c1","serverTime":1700000000000,"heartbeatMs":15000,` +
	`"limits":{"maxMessageBytes":262144,"maxPositions":1000,"maxSubscriptions":100,"maxRadius":50000,"messagesPerSecond":0}}`

// fake is a server whose n-th connection plays the n-th script. Where that is nil, and once
// the scripts are out, the connection is refused with 404, so that a client that comes back too
// often shows.
type fake struct {
	t        *testing.T
	url      string
	client   *http.Client // nil for the usual one
	scripts  []func(*peer)
	welcome  string
	patience time.Duration // with one connection

	mu    sync.Mutex
	conns int
}

// peer is one connection of a fake, seen from the server.
type peer struct {
	t    *testing.T
	ctx  context.Context
	ws   *websocket.Conn
	mute bool // it answers no pings; the script's own
}

func newFake(t *testing.T, scripts ...func(*peer)) *fake {
	t.Helper()
	f := &fake{t: t, scripts: scripts, welcome: welcome, patience: 20 * time.Second}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = "ws" + strings.TrimPrefix(server.URL, "http") + "/v1/ws"
	return f
}

func (f *fake) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := f.conns
	f.conns++
	f.mu.Unlock()
	if n >= len(f.scripts) || f.scripts[n] == nil {
		http.NotFound(w, r)
		return
	}
	p := &peer{t: f.t}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:   []string{client.Subprotocol},
		OnPingReceived: func(context.Context, []byte) bool { return !p.mute },
	})
	if err != nil {
		f.t.Errorf("accept: %v", err)
		return
	}
	defer ws.CloseNow()
	ctx, cancel := context.WithTimeout(r.Context(), f.patience)
	defer cancel()
	p.ctx, p.ws = ctx, ws
	p.say("%s", f.welcome)
	f.scripts[n](p)
}

func (p *peer) say(format string, args ...any) {
	message := format
	if len(args) > 0 {
		message = fmt.Sprintf(format, args...)
	}
	if err := p.ws.Write(p.ctx, websocket.MessageText, []byte(message)); err != nil && p.ctx.Err() == nil {
		p.t.Logf("say %s: %v", message, err)
	}
}

type message struct {
	Type       string
	ID         json.Number
	Seq        int
	Driver     string
	Timestamp  int64
	Attributes map[string]string
	Positions  []message
	Nearby     *dray.Circle
	Filter     map[string][]string
	IntervalMs int64
	Token      string
	Limit      int

	Key, Location, Reservation string
	Near                       any
	Items                      []dray.Item
	TTLSeconds, Replicas       int
}

// hear reads the next message, and fails the test unless it is of this type.
func (p *peer) hear(kind string) (m message) {
	p.t.Helper()
	_, b, err := p.ws.Read(p.ctx)
	if err != nil {
		p.t.Errorf("waiting for %s: %v", kind, err)
		panic(http.ErrAbortHandler)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		p.t.Errorf("%s: %v", b, err)
	}
	if m.Type != kind {
		p.t.Errorf("heard %s, want a message of type %s", b, kind)
		panic(http.ErrAbortHandler)
	}
	return m
}

// linger reads until the client closes.
func (p *peer) linger() {
	for {
		if _, _, err := p.ws.Read(p.ctx); err != nil {
			return
		}
	}
}

// drop cuts the connection without a closing handshake.
func (p *peer) drop() { p.ws.CloseNow() }

func (p *peer) close(number int, reason string) {
	p.ws.Close(websocket.StatusCode(number), reason)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func dial(t *testing.T, f *fake, edit ...func(*client.Config)) *client.Client {
	t.Helper()
	config := client.Config{URL: f.url, HTTPClient: f.client, Logger: quiet(), MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond}
	for _, e := range edit {
		e(&config)
	}
	c, err := client.Dial(testContext(t), config)
	if err != nil {
		t.Fatalf("Dial() = %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func at(driver string, ms int64) dray.Position {
	p := dray.NewPosition(driver, dray.Point{Latitude: 30.25, Longitude: -97.75})
	p.Timestamp = time.UnixMilli(ms)
	return p
}

// driver is a Driver object of the wire.
func driver(id string, ms int64) string {
	return fmt.Sprintf(`{"driver":%q,"latitude":30.25,"longitude":-97.75,"timestamp":%d,"receivedAt":%d}`, id, ms, ms)
}

func next(t *testing.T, s *client.Subscription) client.Event {
	t.Helper()
	e, err := s.Next(testContext(t))
	if err != nil {
		t.Fatalf("Next() = %v", err)
	}
	return e
}

// show is an event in one line: who entered, moved and left.
func show(e client.Event) string {
	var parts []string
	if e.Snapshot {
		parts = append(parts, "snapshot")
	}
	list := func(sign string, drivers []dray.Driver) {
		var ids []string
		for _, d := range drivers {
			ids = append(ids, fmt.Sprintf("%s%s@%d", sign, d.Driver, d.Timestamp.UnixMilli()))
		}
		sortStrings(ids)
		parts = append(parts, ids...)
	}
	list("+", e.Entered)
	list("~", e.Moved)
	var left []string
	for _, l := range e.Left {
		left = append(left, fmt.Sprintf("-%s:%s", l.Driver, l.Reason))
	}
	sortStrings(left)
	return strings.Join(append(parts, left...), " ")
}
