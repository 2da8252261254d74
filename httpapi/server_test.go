package httpapi_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dray/httpapi"
	"dray/realtime/claim"
	"dray/realtime/inventory"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// A node is one running server with everything below it.
type node struct {
	t     testing.TB
	url   string // http://host:port
	api   *httpapi.Server
	store *location.Store
	stock *inventory.Store
	log   *logbook
}

// start runs a node on the shared Redis until the test ends; change alters its Config.
func start(t testing.TB, change func(*httpapi.Config)) *node {
	t.Helper()
	return startOn(t, redistest.Single(t), location.Config{TrailLength: 10}, change)
}

func startOn(t testing.TB, redis *redistest.Server, places location.Config, change func(*httpapi.Config)) *node {
	t.Helper()
	n := &node{t: t, log: new(logbook)}
	logger := slog.New(slog.NewTextHandler(n.log, nil))
	rdb := redistest.Open(t, redis.Config())
	places.Redis, places.Logger = rdb, logger
	n.store = location.New(places)
	hub := watch.New(watch.Config{Redis: rdb, Locations: n.store, Logger: logger})
	stock, err := inventory.New(t.Context(), inventory.Config{Redis: rdb, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	n.stock = stock
	claims := claim.New(claim.Config{Redis: rdb, Near: hub})
	live := inventory.NewHub(inventory.HubConfig{Redis: rdb, Logger: logger})
	cfg := httpapi.Config{Locations: n.store, Hub: hub, Stock: stock, LiveStock: live, Claims: claims, Redis: rdb, Version: "test", Logger: logger}
	if change != nil {
		change(&cfg)
	}
	n.api = httpapi.New(cfg)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.url = "http://" + listener.Addr().String()
	server := n.api.HTTPServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		n.api.Shutdown(ctx)
		server.Close()
		<-served
		hub.Close()
		live.Close()
		if err := n.stock.Close(ctx); err != nil {
			t.Errorf("inventory.Store.Close: %v", err)
		}
		if err := n.store.Close(ctx); err != nil {
			t.Errorf("Store.Close: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return n
}

// A logbook keeps what was logged.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A client is one WebSocket of a test.
type client struct {
	t  testing.TB
	ws *websocket.Conn
}

const patience = 10 * time.Second // before a test gives up waiting

// dial opens a WebSocket; its welcome is still to be read.
func (n *node) dial(options *websocket.DialOptions) *client {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, n.url+"/v1/ws", options)
	if err != nil {
		n.t.Fatal(err)
	}
	ws.SetReadLimit(64 << 20)
	n.t.Cleanup(func() { ws.CloseNow() })
	return &client{n.t, ws}
}

// join is dial past the welcome.
func (n *node) join() *client {
	n.t.Helper()
	c := n.dial(nil)
	if got := c.read(); !strings.HasPrefix(got, `{"type":"welcome",`) {
		n.t.Fatalf("first frame is %s, want welcome", got)
	}
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.trySend(text); err != nil {
		c.t.Fatalf("send %.100s: %v", text, err)
	}
}

func (c *client) trySend(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, []byte(text))
}

func (c *client) read() string {
	c.t.Helper()
	text, err := c.tryRead()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return text
}

func (c *client) tryRead() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := c.ws.Read(ctx)
	return string(b), err
}

// do asks over REST and returns the status and body.
func (n *node) do(method, path, body string, header ...string) (*http.Response, string) {
	n.t.Helper()
	r, err := http.NewRequest(method, n.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return res, ""
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res, string(b)
}

// eventually asks until ok, or fails the test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
