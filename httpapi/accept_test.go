package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dray"
	"dray/httpapi"
)

func TestConnectionsOfOneAddress(t *testing.T) {
	n := start(t, func(c *httpapi.Config) { c.MaxConnectionsPerIP = 2 })
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = r.Header.Get("Test-From")
		n.api.Handler().ServeHTTP(w, r)
	}))
	defer web.Close()
	dial := func(from string) (*websocket.Conn, *http.Response) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		ws, res, err := websocket.Dial(ctx, web.URL+"/v1/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Test-From": {from}, "X-Forwarded-For": {"203.0.113.9"}}})
		if err != nil && res == nil {
			t.Fatal(err)
		}
		return ws, res
	}
	open := map[string]*websocket.Conn{}
	defer func() {
		for _, ws := range open {
			ws.CloseNow()
		}
	}()
	for _, step := range []struct {
		name, from string
		taken      bool
	}{
		{"first of an address", "192.0.2.1:1001", true},
		{"second", "192.0.2.1:1002", true},
		{"third", "192.0.2.1:1003", false},
		{"third, written as IPv6", "[::ffff:192.0.2.1]:1004", false},
		{"another address", "192.0.2.2:1001", true},
		{"IPv6", "[2001:db8:1:2::1]:1001", true},
		{"its neighbour in the /64", "[2001:db8:1:2:ffff::2]:1001", true},
		{"another neighbour", "[2001:db8:1:2::3]:1001", false},
		{"the next /64", "[2001:db8:1:3::1]:1001", true},
		{"loopback", "127.0.0.1:1001", true},
		{"loopback again", "127.0.0.1:1002", true},
		{"loopback a third time", "127.0.0.1:1003", true},
		{"IPv6 loopback", "[::1]:1001", true},
		{"a socket that has no address", "@", true},
	} {
		ws, res := dial(step.from)
		if (ws != nil) != step.taken {
			t.Errorf("%s: taken %v, want %v", step.name, ws != nil, step.taken)
		}
		if ws != nil {
			open[step.name] = ws
			continue
		}
		var problem struct {
			Code      dray.Code
			Retryable bool
		}
		if err := json.NewDecoder(res.Body).Decode(&problem); err != nil || res.StatusCode != 429 || problem.Code != dray.CodeRateLimited || !problem.Retryable || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %+v %v, want 429 %s with Retry-After", step.name, res.StatusCode, problem, res.Header, dray.CodeRateLimited)
		}
	}
	open["second"].CloseNow()
	delete(open, "second")
	for give := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if ws, _ := dial("192.0.2.1:1005"); ws != nil {
			ws.CloseNow()
			return
		}
		if time.Now().After(give) {
			t.Fatal("the place of a closed connection is not given back")
		}
	}
}
