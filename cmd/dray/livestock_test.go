package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/client"
	"dray/redisconn/redistest"
)

func TestWatchStock(t *testing.T) {
	env := []string{"REDIS_URL=redis://" + redistest.Single(t).Addr(), "REDIS_KEY_PREFIX=" + redistest.Prefix(t)}
	p := start(t, env, "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
	env = []string{"DRAY_URL=" + p.url}
	for _, args := range []string{"stock set milk 3", "stock set bread 0", "stock set eggs 12", "reserve milk=1"} {
		if code, _, stderr := runDray(t, env, strings.Fields(args)...); code != 0 {
			t.Fatalf("dray %s = %d, %s", args, code, stderr)
		}
	}
	for _, test := range []struct {
		name, args string
		code       int
		stdout     []string // parts of it, spaces squeezed
		stderr     string
	}{
		{"a table", "watch --stock default --low 5 --once", 0,
			[]string{"3 SKUs at default, 1 out, 1 low SKU AVAILABLE RESERVED ON HAND CHANGED bread 0 0 0 ", " out eggs 12 0 12 ", " milk 2 1 3 ", " low "}, ""},
		{"JSON of one SKU", "watch --stock default --sku milk --json --once", 0,
			[]string{`{"type":"snapshot","version":1,"serverTime":`, `"stock":[{"location":"default","sku":"milk","quantity":3,"reserved":1,"available":2,`}, ""},
		{"nothing there", "watch --stock nowhere --once --json", 0, []string{`"stock":[]}`}, ""},
		{"no location", "watch --sku milk", 2, nil, "name it with --stock"},
		{"two shapes", "watch --stock default --drivers d1", 2, nil, "--stock"},
		{"a location that is none", "watch --stock a{b}", 1, nil, "stock.location"},
		{"a filter", "watch --stock default --filter a=b", 1, nil, "stock has no attributes"},
	} {
		code, stdout, stderr := runDray(t, env, strings.Fields(test.args)...)
		squeezed := strings.Join(strings.Fields(stdout), " ") + " "
		for _, want := range test.stdout {
			if !strings.Contains(squeezed, want) {
				t.Errorf("%s: dray %s printed %q, want ...%q...", test.name, test.args, squeezed, want)
			}
		}
		if code != test.code || !strings.Contains(stderr, test.stderr) || (stderr == "") != (code == 0) {
			t.Errorf("%s: dray %s = %d, %q, want %d, ...%q...", test.name, test.args, code, stderr, test.code, test.stderr)
		}
	}
	if code := p.signal(t, os.Interrupt); code != 0 || p.stderr.Len() > 0 {
		t.Errorf("serve ended with %d and said %q, want 0 and nothing", code, p.stderr.String())
	}
}

func TestStockEventLines(t *testing.T) {
	row := func(sku string, n int64) dray.Stock {
		return dray.Stock{Location: "l", SKU: sku, Quantity: n, Available: n, Version: n, LastUpdated: time.UnixMilli(9)}
	}
	got := string(appendStockEvent(nil, client.Event{Version: 3, ServerTime: time.UnixMilli(5),
		Stock:       []dray.Stock{row("b", 2), row("a", 1)},
		StockLeft:   []dray.StockLeave{{SKU: "d", Reason: dray.LeftShape}, {SKU: "c", Reason: dray.LeftShape}},
		StockEvents: []dray.StockEvent{{SKU: "b", Event: dray.StockLow, Available: 2}, {SKU: "a", Event: dray.StockBack, Available: 1}}}))
	want := `{"type":"delta","version":3,"serverTime":5,"left":[{"sku":"c","reason":"shape"},{"sku":"d","reason":"shape"}],` +
		`"stock":[{"location":"l","sku":"a","quantity":1,"reserved":0,"available":1,"version":1,"lastUpdated":9},` +
		`{"location":"l","sku":"b","quantity":2,"reserved":0,"available":2,"version":2,"lastUpdated":9}],` +
		`"events":[{"sku":"a","event":"back","available":1},{"sku":"b","event":"low","available":2}]}`
	if got != want {
		t.Errorf("line %s, want %s", got, want)
	}
}
