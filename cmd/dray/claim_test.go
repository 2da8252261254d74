package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"dray"
)

func TestClaimAndUnclaim(t *testing.T) {
	p := start(t, nil, "demo", "--listen", "127.0.0.1:0", "--drivers", "20", "--log-level", "error")
	claim := func(args ...string) (code int, stdout, stderr string) {
		t.Helper()
		return runDray(t, []string{"DRAY_URL=" + p.url}, args...)
	}
	var c dray.Claim
	code, out, stderr := 1, "", ""
	for tries := 0; code != 0 && tries < 100; tries++ { // until somebody is there
		code, out, stderr = claim("claim", "--count", "2", "--key", "ride 7", "--ttl", "1h", "--json")
	}
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.ID == "" || len(c.Drivers) == 0 {
		t.Fatalf("claim --json = %d, %s%s, %v", code, out, stderr, err)
	}
	code, out, stderr = claim("claim", "--count", "2", "--key", "ride 7", "--ttl", "1h")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 1+len(c.Drivers) || !strings.HasPrefix(lines[0], c.ID+"  ") || !strings.HasPrefix(lines[1], c.Drivers[0].Driver+"  ") {
		t.Errorf("claim = %d, %s%s, want %+v", code, out, stderr, c)
	}
	if code, _, stderr := claim("claim", "--key", "ride 7"); code != 1 || !strings.Contains(stderr, "another request") {
		t.Errorf("another claim with the key = %d, %s, want it refused", code, stderr)
	}
	if code, out, _ := claim("watch", "--once", "--drivers", c.Drivers[0].Driver, "--json"); code != 0 || !strings.Contains(out, `"claimed":true`) {
		t.Errorf("watch of the driver = %d, %s, want it claimed", code, out)
	}
	if code, out, stderr := claim("unclaim", c.ID); code != 0 || out+stderr != "" {
		t.Errorf("unclaim = %d, %s%s, want nothing said", code, out, stderr)
	}
	if code, _, stderr := claim("unclaim", c.ID); code != 1 || !strings.Contains(stderr, "it has ended") {
		t.Errorf("unclaim again = %d, %s, want that it has ended", code, stderr)
	}
	if code := p.signal(t, os.Interrupt); code != 0 {
		t.Errorf("demo ended with %d, want 0", code)
	}
}
