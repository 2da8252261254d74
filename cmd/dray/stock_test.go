package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"dray"
	"dray/redisconn/redistest"
)

// A shop from the shell: what the commands print, in the order in which one would use them.
func TestStockCommands(t *testing.T) {
	env := []string{"REDIS_URL=redis://" + redistest.Single(t).Addr(), "REDIS_KEY_PREFIX=" + redistest.Prefix(t)}
	p := start(t, env, "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
	env = []string{"DRAY_URL=" + p.url}
	var id string // of the reservation
	for _, test := range []struct {
		name   string
		args   string
		code   int
		stdout string // a part of it, spaces squeezed
		stderr string
	}{
		{"set", "stock set apple 10 --new", 0, "default apple 10 0 10", ""},
		{"set again", "stock set apple 10 --new", 1, "", "the current version is "},
		{"set another", "stock set pear 5 --reason delivery", 0, "default pear 5 0 5", ""},
		{"adjust downwards", "stock adjust apple -2 --reason broken", 0, "default apple 8 0 8", ""},
		{"get", "stock get apple", 0, "LOCATION SKU QUANTITY RESERVED AVAILABLE VERSION UPDATED default apple 8 0 8", ""},
		{"get what is not there", "stock get plum", 1, "", "dray: /v1/stock/default/plum: not found"},
		{"get elsewhere", "stock get apple --location shop-1", 1, "", "dray: /v1/stock/shop-1/apple: not found"},
		{"reserve too much", "reserve apple=9 pear=1 plum=1", 1, "", "dray: not enough stock: apple: 9 asked for, 8 there, plum: 1 asked for, 0 there"},
		{"reserve", "reserve apple=2 pear=1 apple=1 --ttl 1h --key k --json", 0, `"items":[{"sku":"apple","quantity":3,`, ""},
		{"reserve again", "reserve apple=2 pear=1 apple=1 --ttl 1h --key k", 0, "is held until ", ""},
		{"reserve another with the same key", "reserve apple=1 --key k", 1, "", "dray: key was used with another request"},
		{"below what is reserved", "stock set apple 1", 1, "", "dray: quantity is below the 3 units that are reserved"},
		{"commit a part", "commit ID apple=1", 0, "is held until ", ""},
		{"commit too much", "commit ID apple=3", 1, "", "dray: more than is held: apple: 3 asked for, 2 there"},
		{"extend by nothing", "extend ID --ttl 0", 1, "", "ttlSeconds"},
		{"extend", "extend ID --ttl 2h", 0, "is held until ", ""},
		{"release the rest", "release ID --json", 0, `"status":"committed"`, ""},
		{"release it again", "release ID", 1, "", "dray: already released"},
		{"list", "stock list", 0, "default apple 7 0 7 ", ""},
		{"list as JSON", "stock list --json", 0, `{"location":"default","sku":"pear","quantity":5,`, ""},
		{"ledger", "stock ledger apple --limit 2", 0, "apple release 7 2 > 0 ", ""},
		{"ledger of a reservation", "stock ledger --reservation ID", 0, "apple hold 8 0 > 3 ", ""},
		{"replicas that are not there", "reserve pear=1 --replicas 1", 1, "", "0 of 1 replicas confirmed"},
		{"place", "stock place shop-1 30.27,-97.74", 0, "", ""},
		{"stock of a place", "stock set apple 3 --location shop-1", 0, "shop-1 apple 3 0 3", ""},
		{"reserve near", "reserve apple=1 --near 30.26,-97.74,5000", 0, ", 1112 m away", ""},
		{"reserve near what has none", "reserve plum=1 --near 30.26,-97.74,5000", 1, "", "none of the 1 nearest locations has all of it: plum: 1 asked for, 0 there"},
		{"forget a place", "stock place shop-1 --forget", 0, "", ""},
		{"forget it again", "stock place shop-1 --forget", 1, "", "dray: /v1/locations/shop-1: not found"},
		{"no reservation", "commit default.NONE", 1, "", "dray: /v1/reservations/default.NONE/commit: not found"},
	} {
		args := strings.Fields(strings.ReplaceAll(test.args, "ID", id))
		code, stdout, stderr := runDray(t, env, args...)
		if code != test.code || !strings.Contains(strings.Join(strings.Fields(stdout), " ")+" ", test.stdout) || !strings.Contains(stderr, test.stderr) || (stderr == "") != (code == 0) {
			t.Errorf("%s: dray %s = %d, %q, %q, want %d, ...%q..., ...%q...", test.name, test.args, code, stdout, stderr, test.code, test.stdout, test.stderr)
		}
		if strings.HasPrefix(stdout, `{"reservation"`) && id == "" {
			var r dray.Reservation
			if err := json.Unmarshal([]byte(stdout), &r); err != nil {
				t.Fatal(err)
			}
			id = r.Reservation
		}
	}
	if code := p.signal(t, os.Interrupt); code != 0 || p.stderr.Len() > 0 {
		t.Errorf("serve ended with %d and said %q, want 0 and nothing", code, p.stderr.String())
	}
}

func TestARedisThatEvicts(t *testing.T) {
	env := []string{"REDIS_URL=redis://" + redistest.Start(t, "--maxmemory-policy", "allkeys-lru").Addr()}
	code, _, stderr := runDray(t, env, "serve", "--listen", "127.0.0.1:0")
	for _, want := range []string{"maxmemory-policy", "allkeys-lru", "noeviction", "DRAY_INVENTORY=off"} {
		if code != 1 || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("serve = %d, %s, want 1 and one line with %s", code, stderr, want)
		}
	}
	p := start(t, append(env, "DRAY_INVENTORY=off"), "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
	answer, err := http.Get(strings.Replace(strings.TrimSuffix(p.url, socketPath), "ws", "http", 1) + "/v1/stock/default/apple")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if answer.StatusCode != http.StatusNotFound {
		t.Errorf("GET of stock that is off = %d, want 404", answer.StatusCode)
	}
	if code := p.signal(t, os.Interrupt); code != 0 || p.stderr.Len() > 0 {
		t.Errorf("serve ended with %d and said %q, want 0 and nothing", code, p.stderr.String())
	}
}
