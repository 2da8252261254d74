package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"dray/httpapi"
)

// host asks for path with a Host of its own.
func (n *node) host(method, path, host string, header ...string) *http.Response {
	n.t.Helper()
	r, err := http.NewRequest(method, n.url+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		n.t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res
}

// A site whose name was made to resolve to this machine is not served: its Host tells.
func TestForeignHostIsForbidden(t *testing.T) {
	n := start(t, func(c *httpapi.Config) {
		c.AllowedOrigins = []string{"https://maps.example.com:8443", "*.fleet.example"}
		c.AllowedHosts = []string{"dray.internal"}
	})
	for host, want := range map[string]int{
		"localhost": 404, "LOCALHOST:1": 404, "127.0.0.1:9": 404, "127.9.9.9": 404, "[::1]:80": 404, "[::1]": 404, "localhost.:80": 404,
		"maps.example.com": 404, "maps.example.com:8443": 404, "a.fleet.example": 404, "dray.internal": 404, "dray.internal:80": 404,
		"evil.example": 403, "evil.example:8080": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403, "10.0.0.1": 403, "0.0.0.0": 403, "x": 403,
	} {
		if res := n.host("GET", "/v1/drivers/nobody", host); res.StatusCode != want {
			t.Errorf("Host %s = %d, want %d", host, res.StatusCode, want)
		}
		// The page's own origin is that same name.
		res := n.host("GET", "/v1/ws", host, "Origin", "http://"+host)
		if refused := res.StatusCode == 403; refused != (want == 403) {
			t.Errorf("a WebSocket with Host %s = %d", host, res.StatusCode)
		}
	}
}

func TestCORS(t *testing.T) {
	n := start(t, func(c *httpapi.Config) { c.AllowedOrigins = []string{"https://maps.example.com"} })
	const good, evil = "https://maps.example.com", "https://evil.example"
	for _, c := range []struct {
		name, method, path, origin string
		preflight                  bool
		status                     int
		allowed                    bool
	}{
		{"preflight of an allowed page", "OPTIONS", "/v1/drivers/d/position", good, true, 204, true},
		{"preflight of another", "OPTIONS", "/v1/drivers/d/position", evil, true, 405, false},
		{"read by an allowed page", "GET", "/v1/drivers/nobody", good, false, 404, true},
		{"read by another", "GET", "/v1/drivers/nobody", evil, false, 404, false},
		{"change by an allowed page", "DELETE", "/v1/drivers/d", good, false, 204, true},
		{"change by another", "DELETE", "/v1/drivers/d", evil, false, 403, false},
		{"change by a page of nowhere", "DELETE", "/v1/drivers/d", "null", false, 403, false},
		{"change by no page", "DELETE", "/v1/drivers/d", "", false, 204, false},
		{"OPTIONS that is no preflight", "OPTIONS", "/v1/drivers/d", good, false, 405, true},
	} {
		var header []string
		if c.origin != "" {
			header = append(header, "Origin", c.origin)
		}
		if c.preflight {
			header = append(header, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "content-type")
		}
		res, _ := n.do(c.method, c.path, "", header...)
		allow := res.Header.Get("Access-Control-Allow-Origin")
		if want := map[bool]string{true: c.origin}[c.allowed]; res.StatusCode != c.status || allow != want || res.Header.Get("Vary") != "Origin" {
			t.Errorf("%s = %d, allowed origin %q, Vary %q; want %d, %q", c.name, res.StatusCode, allow, res.Header.Get("Vary"), c.status, want)
		}
		if c.preflight && c.allowed && (!strings.Contains(res.Header.Get("Access-Control-Allow-Methods"), "PUT") || !strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), "Content-Type")) {
			t.Errorf("%s allows %v", c.name, res.Header)
		}
	}
}

// Two lengths for one body are answered once, and nothing after them.
func TestTwoLengthsCloseTheConnection(t *testing.T) {
	n := start(t, nil)
	nc, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	const body = `{"latitude":1,"longitude":2}`
	fmt.Fprintf(nc, "PUT /v1/drivers/two/position HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 28\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", len(body), body)
	in := bufio.NewReader(nc)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 200 || !res.Close {
		t.Fatalf("got %v, %v, want 200 and Connection: close", res, err)
	}
	io.Copy(io.Discard, res.Body)
	if rest, _ := io.ReadAll(in); len(rest) > 0 {
		t.Errorf("then came %q, want the end", rest)
	}
}
