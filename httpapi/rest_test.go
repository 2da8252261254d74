package httpapi_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/httpapi"
	"dray/realtime/location"
	"dray/redisconn/redistest"
)

const near = "/v1/drivers/nearby?latitude=1&longitude=2&radius=100"

func TestREST(t *testing.T) {
	n := start(t, nil)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     dray.Code
	}{
		{"nearby", "GET", near, "", 200, ""},
		{"nearby by attributes", "GET", near + "&status=free&status=busy&vehicle=van", "", 200, ""},
		{"nearby asked with HEAD", "HEAD", near, "", 200, ""},
		{"nearby without latitude", "GET", "/v1/drivers/nearby?longitude=2&radius=100", "", 400, dray.CodeBadRequest},
		{"nearby with an empty latitude", "GET", "/v1/drivers/nearby?latitude=&longitude=2&radius=100", "", 400, dray.CodeBadRequest},
		{"nearby with two latitudes", "GET", near + "&latitude=1", "", 400, dray.CodeBadRequest},
		{"nearby with latitude NaN", "GET", "/v1/drivers/nearby?latitude=NaN&longitude=2&radius=100", "", 400, dray.CodeBadRequest},
		{"nearby with latitude 0x1p4", "GET", "/v1/drivers/nearby?latitude=0x1p4&longitude=2&radius=100", "", 400, dray.CodeBadRequest},
		{"nearby with latitude 1e400", "GET", "/v1/drivers/nearby?latitude=1e400&longitude=2&radius=100", "", 422, dray.CodeInvalidPosition},
		{"nearby with latitude 91", "GET", "/v1/drivers/nearby?latitude=91&longitude=2&radius=100", "", 422, dray.CodeInvalidPosition},
		{"nearby with longitude 180", "GET", "/v1/drivers/nearby?latitude=1&longitude=180&radius=100", "", 200, ""},
		{"nearby with longitude 180.1", "GET", "/v1/drivers/nearby?latitude=1&longitude=180.1&radius=100", "", 422, dray.CodeInvalidPosition},
		{"nearby with radius 0", "GET", "/v1/drivers/nearby?latitude=1&longitude=2&radius=0", "", 400, dray.CodeBadRequest},
		{"nearby with radius -1", "GET", "/v1/drivers/nearby?latitude=1&longitude=2&radius=-1", "", 400, dray.CodeBadRequest},
		{"nearby with radius 50001", "GET", "/v1/drivers/nearby?latitude=1&longitude=2&radius=50001", "", 400, dray.CodeBadRequest},
		{"nearby with limit 0", "GET", near + "&limit=0", "", 400, dray.CodeBadRequest},
		{"nearby with limit 1001", "GET", near + "&limit=1001", "", 400, dray.CodeBadRequest},
		{"nearby with limit 1000", "GET", near + "&limit=1000", "", 200, ""},
		{"nearby with limit ten", "GET", near + "&limit=ten", "", 400, dray.CodeBadRequest},
		{"nearby with a query that is none", "GET", near + "&a=%zz", "", 400, dray.CodeBadRequest},
		{"nearby with a semicolon", "GET", near + ";a=b", "", 400, dray.CodeBadRequest},
		{"nearby with 17 attributes", "GET", near + manyParameters(17), "", 413, dray.CodeTooLarge},

		{"a driver nobody knows", "GET", "/v1/drivers/nobody", "", 404, dray.CodeNotFound},
		{"a position", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2}`, 200, ""},
		{"a position of the same driver", "PUT", "/v1/drivers/d1/position", `{"driver":"d1","latitude":1,"longitude":2}`, 200, ""},
		{"a position of another driver", "PUT", "/v1/drivers/d1/position", `{"driver":"d2","latitude":1,"longitude":2}`, 400, dray.CodeBadRequest},
		{"the driver", "GET", "/v1/drivers/d1", "", 200, ""},
		{"the driver, escaped", "GET", "/v1/drivers/%641", "", 200, ""},
		{"the driver, escaped twice", "GET", "/v1/drivers/%25641", "", 400, dray.CodeBadRequest},
		{"a driver with a slash", "GET", "/v1/drivers/a%2Fb", "", 400, dray.CodeBadRequest},
		{"a driver with a brace", "GET", "/v1/drivers/%7Ba%7D", "", 400, dray.CodeBadRequest},
		{"a driver that is not UTF-8", "GET", "/v1/drivers/%ff", "", 400, dray.CodeBadRequest},
		{"a driver with a newline", "GET", "/v1/drivers/a%0Ab", "", 400, dray.CodeBadRequest},
		{"a driver with a star", "DELETE", "/v1/drivers/*", "", 400, dray.CodeBadRequest},
		{"a driver of 128 bytes", "GET", "/v1/drivers/" + strings.Repeat("a", 128), "", 404, dray.CodeNotFound},
		{"a driver of 129 bytes", "GET", "/v1/drivers/" + strings.Repeat("a", 129), "", 400, dray.CodeBadRequest},
		{"a NUL in the path", "GET", "/v1/drivers/%00", "", 404, dray.CodeNotFound},
		{"a path that climbs", "GET", "/v1/drivers/../positions", "", 404, dray.CodeNotFound},
		{"a path that climbs, escaped", "GET", "/v1/drivers/%2e%2e/position", "", 404, dray.CodeNotFound},

		{"latitude missing", "PUT", "/v1/drivers/d1/position", `{"longitude":2}`, 422, dray.CodeInvalidPosition},
		{"latitude null", "PUT", "/v1/drivers/d1/position", `{"latitude":null,"longitude":2}`, 422, dray.CodeInvalidPosition},
		{"latitude a string", "PUT", "/v1/drivers/d1/position", `{"latitude":"1","longitude":2}`, 422, dray.CodeInvalidPosition},
		{"latitude 1e400", "PUT", "/v1/drivers/d1/position", `{"latitude":1e400,"longitude":2}`, 422, dray.CodeInvalidPosition},
		{"latitude NaN", "PUT", "/v1/drivers/d1/position", `{"latitude":NaN,"longitude":2}`, 400, dray.CodeBadRequest},
		{"latitude 85.06", "PUT", "/v1/drivers/d1/position", `{"latitude":85.06,"longitude":2}`, 422, dray.CodeInvalidPosition},
		{"longitude 180", "PUT", "/v1/drivers/d180/position", `{"latitude":1,"longitude":180}`, 200, ""},
		{"longitude -180", "PUT", "/v1/drivers/d181/position", `{"latitude":1,"longitude":-180}`, 200, ""},
		{"(0, 0)", "PUT", "/v1/drivers/d0/position", `{"latitude":0,"longitude":0}`, 200, ""},
		{"heading 360", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2,"heading":360}`, 422, dray.CodeInvalidPosition},
		{"speed -1", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2,"speed":-1}`, 422, dray.CodeInvalidPosition},
		{"timestamp -1", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2,"timestamp":-1}`, 422, dray.CodeInvalidPosition},
		{"timestamp 1.5", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2,"timestamp":1.5}`, 422, dray.CodeInvalidPosition},
		{"timestamp ahead", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2,"timestamp":` + ahead() + `}`, 422, dray.CodeInvalidPosition},
		{"timestamp long ago", "PUT", "/v1/drivers/dOld/position", `{"latitude":1,"longitude":2,"timestamp":1000}`, 200, ""},
		{"who was there long ago", "GET", "/v1/drivers/dOld", "", 404, dray.CodeNotFound},
		{"an attribute that is a number", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2,"attributes":{"a":1}}`, 400, dray.CodeBadRequest},
		{"a value of 257 bytes", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2,"attributes":{"a":"` + strings.Repeat("x", 257) + `"}}`, 400, dray.CodeBadRequest},
		{"no JSON", "PUT", "/v1/drivers/d1/position", `{`, 400, dray.CodeBadRequest},
		{"a list", "PUT", "/v1/drivers/d1/position", `[]`, 400, dray.CodeBadRequest},
		{"names twice", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"latitude":1,"longitude":2}`, 400, dray.CodeBadRequest},
		{"bytes after it", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2}}`, 400, dray.CodeBadRequest},
		{"nested 10,000 deep", "PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2,"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`, 400, dray.CodeBadRequest},

		{"offline", "DELETE", "/v1/drivers/d1", "", 204, ""},
		{"who is offline", "GET", "/v1/drivers/d1", "", 404, dray.CodeNotFound},
		{"offline twice", "DELETE", "/v1/drivers/d1", "", 204, ""},

		{"no positions", "POST", "/v1/positions", `{"positions":[]}`, 400, dray.CodeBadRequest},
		{"positions missing", "POST", "/v1/positions", `{}`, 400, dray.CodeBadRequest},
		{"1,001 positions", "POST", "/v1/positions", `{"positions":[` + strings.Repeat("1,", 1000) + `1]}`, 413, dray.CodeTooLarge},
		{"over 1 MiB", "POST", "/v1/positions", `{"positions":[` + strings.Repeat(" ", 1<<20) + `]}`, 413, dray.CodeTooLarge},

		{"a trail", "GET", "/v1/drivers/d0/trail?from=0&to=9007199254740991&limit=1", "", 200, ""},
		{"a trail from a word", "GET", "/v1/drivers/d0/trail?from=now", "", 400, dray.CodeBadRequest},
		{"a trail back in time", "GET", "/v1/drivers/d0/trail?from=2&to=1", "", 400, dray.CodeBadRequest},
		{"a trail of 1,001", "GET", "/v1/drivers/d0/trail?limit=1001", "", 400, dray.CodeBadRequest},

		{"no such path", "GET", "/v1/nothing", "", 404, dray.CodeNotFound},
		{"the root leads to the documents", "GET", "/", "", 200, ""},
		{"no such method", "PATCH", "/v1/drivers/d1", "", 405, dray.CodeMethodNotAllowed},
		{"a method nobody knows", "BREW", "/v1/drivers/d1", "", 405, dray.CodeMethodNotAllowed},
		{"a method nobody knows, nowhere", "BREW", "/nothing", "", 404, dray.CodeNotFound},
		{"POST on GET", "POST", "/health/live", "{}", 405, dray.CodeMethodNotAllowed},

		{"live", "GET", "/health/live", "", 200, ""},
		{"Redis", "GET", "/health/redis", "", 200, ""},
		{"metrics", "GET", "/metrics", "", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := n.do(c.method, c.path, c.body)
			if res.StatusCode != c.status {
				t.Fatalf("%s %s = %d %s, want %d", c.method, c.path, res.StatusCode, body, c.status)
			}
			if res.Header.Get("X-Request-Id") == "" {
				t.Error("no X-Request-Id")
			}
			if c.status < 400 {
				return
			}
			checkProblem(t, res.Header.Get("Content-Type"), body, c.status, c.code)
			if c.status == 405 && res.Header.Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
}

func checkProblem(t *testing.T, kind, body string, status int, code dray.Code) {
	t.Helper()
	var p struct {
		Type, Title, Detail, RequestID string
		Status                         int
		Code                           dray.Code
		Retryable                      *bool
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil || kind != "application/problem+json" {
		t.Fatalf("%s %s is no problem document: %v", kind, body, err)
	}
	if p.Code != code || p.Status != status || p.Type != "about:blank" || p.Title == "" || p.Detail == "" || p.RequestID == "" || p.Retryable == nil || *p.Retryable != code.Retryable() {
		t.Errorf("got %s, want code %s and every member", body, code)
	}
}

func manyParameters(n int) (s string) {
	for i := range n {
		s += fmt.Sprintf("&a%d=b", i)
	}
	return s
}

func ahead() string { return strconv.FormatInt(time.Now().Add(5*time.Minute).UnixMilli(), 10) }

func TestContentType(t *testing.T) {
	n := start(t, nil)
	const body = `{"latitude":1,"longitude":2}`
	for kind, want := range map[string]int{
		"application/json": 200, "application/json; charset=utf-8": 200, "Application/JSON": 200,
		"text/plain": 415, "application/x-www-form-urlencoded": 415, "application/jsonx": 415, "nonsense;": 415,
	} {
		if res, text := n.do("PUT", "/v1/drivers/kind/position", body, "Content-Type", kind); res.StatusCode != want {
			t.Errorf("Content-Type %q = %d %s, want %d", kind, res.StatusCode, text, want)
		}
	}
	if res, _ := n.do("PUT", "/v1/drivers/kind/position", body, "Content-Encoding", "gzip"); res.StatusCode != 415 {
		t.Errorf("Content-Encoding gzip = %d, want 415", res.StatusCode)
	}
}

// Without Redis every answer is unavailable, and none hangs.
func TestRedisOutOfReach(t *testing.T) {
	redis := redistest.Start(t)
	n := startOn(t, redis, location.Config{}, func(c *httpapi.Config) { c.RequestTimeout = time.Second })
	ws := n.join()
	eventually(t, "ready", func() bool { res, _ := n.do("GET", "/health/ready", ""); return res.StatusCode == 200 })
	redis.Stop()
	for _, c := range []struct{ method, path, body string }{
		{"PUT", "/v1/drivers/d1/position", `{"latitude":1,"longitude":2}`},
		{"GET", "/v1/drivers/d1", ""},
		{"DELETE", "/v1/drivers/d1", ""},
		{"GET", near, ""},
	} {
		began := time.Now()
		res, body := n.do(c.method, c.path, c.body)
		if res.StatusCode != 503 {
			t.Errorf("%s %s = %d %s, want 503", c.method, c.path, res.StatusCode, body)
			continue
		}
		checkProblem(t, res.Header.Get("Content-Type"), body, 503, dray.CodeUnavailable)
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("%s %s took %v", c.method, c.path, took)
		}
	}
	for _, path := range []string{"/health/ready", "/health/redis"} {
		if res, body := n.do("GET", path, ""); res.StatusCode != 503 || !strings.Contains(body, "Redis does not answer") {
			t.Errorf("GET %s = %d %s, want 503 and why", path, res.StatusCode, body)
		}
	}
	if res, _ := n.do("GET", "/health/live", ""); res.StatusCode != 200 {
		t.Errorf("live = %d, want 200", res.StatusCode)
	}
	ws.send(`{"type":"position","driver":"d1","latitude":1,"longitude":2,"seq":1}`)
	if got := ws.read(); !strings.Contains(got, `"seq":1,"code":"unavailable"`) || !strings.Contains(got, `"retryable":true`) {
		t.Errorf("got %s, want unavailable", got)
	}
	ws.send(`{"type":"nearby","id":2,"latitude":1,"longitude":2,"radius":5}`)
	for {
		got := ws.read()
		if strings.Contains(got, `"ack"`) {
			continue
		}
		if !strings.Contains(got, `"id":2,"code":"unavailable"`) {
			t.Errorf("got %s, want unavailable", got)
		}
		break
	}
}

// What a client sends stands in the log in quotes, or not at all.
func TestLogHoldsNoBareClientBytes(t *testing.T) {
	n := start(t, nil)
	n.do("GET", "/v1/drivers/evil%0Alevel=ERROR%20msg=forged", "")
	n.join().send("{\"type\":\"\nlevel=ERROR msg=forged\"}")
	if strings.Contains(n.log.String(), "\nlevel=ERROR msg=forged") {
		t.Errorf("a forged line is in the log:\n%s", n.log)
	}
}

func TestOrigins(t *testing.T) {
	n := start(t, func(c *httpapi.Config) { c.AllowedOrigins = []string{"maps.example.com", "https://*.example.org"} })
	own := n.url
	for origin, want := range map[string]int{
		own: 101, "https://maps.example.com": 101, "http://MAPS.example.com": 101, "https://a.example.org": 101,
		"http://a.example.org": 403, "https://evil.example": 403, "null": 403, "": 403, "https://maps.example.com.evil": 403,
		"https://maps.example.com:444": 403,
	} {
		res, body := n.do("GET", "/v1/ws", "", "Origin", origin, "Connection", "Upgrade", "Upgrade", "websocket",
			"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")
		if want == 403 {
			checkProblem(t, res.Header.Get("Content-Type"), body, 403, dray.CodeForbidden)
		}
		if res.StatusCode != want {
			t.Errorf("Origin %q = %d %s, want %d", origin, res.StatusCode, body, want)
		}
	}
}
