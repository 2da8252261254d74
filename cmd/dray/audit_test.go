package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn/redistest"
)

func TestAuditAndArchive(t *testing.T) {
	server := redistest.Start(t)
	config := server.Config()
	config.KeyPrefix = ""
	client := redistest.Open(t, config)
	s, err := inventory.New(t.Context(), inventory.Config{Redis: client})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	if _, err := s.Set(t.Context(), "shop", "milk", inventory.Set{Quantity: 10}, inventory.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reserve(t.Context(), "shop", []dray.Item{{SKU: "milk", Quantity: 3}}, time.Minute, inventory.Options{}); err != nil {
		t.Fatal(err)
	}
	url := "--redis-url=redis://" + server.Addr()
	audit := func(wantCode int, wantText string, args ...string) {
		t.Helper()
		code, stdout, stderr := runDray(t, nil, append([]string{"audit", url}, args...)...)
		if code != wantCode || !strings.Contains(stdout, wantText) {
			t.Fatalf("dray audit %v = %d, %q, %q, want %d and %q", args, code, stdout, stderr, wantCode, wantText)
		}
	}
	audit(0, "1 locations, 0 differences")
	key := "{" + client.Tag(0) + "}:inv:shop:stock"
	row, _, err := client.HashGet(t.Context(), key, "milk")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.HashSet(t.Context(), key, map[string]string{"milk": strings.Replace(row, "10 3", "10 2", 1)}); err != nil {
		t.Fatal(err)
	}
	audit(1, "shop milk: reserved is 2, expected 3")
	audit(1, `"found":2`, "--json", "shop")
	audit(0, "1 differences, 1 repaired", "--repair")
	audit(0, "0 differences")

	dir := t.TempDir()
	file := filepath.Join(dir, "shop.jsonl")
	for range 2 { // the second time there is nothing to add
		if code, _, stderr := runDray(t, nil, "archive", url, "--dir", dir, "--once"); code != 0 {
			t.Fatalf("dray archive = %d, %q", code, stderr)
		}
		text, err := os.ReadFile(file)
		if err != nil || strings.Count(string(text), "\n") != 3 || !strings.Contains(string(text), `"kind":"hold"`) {
			t.Fatalf("archive = %s, %v, want 3 entries", text, err)
		}
		if err := os.WriteFile(file, text[:len(text)-5], 0o644); err != nil { // as if it was killed while writing
			t.Fatal(err)
		}
	}
	if code, _, stderr := runDray(t, nil, "audit"); code != exitUsage || !strings.Contains(stderr, "no Redis is named") {
		t.Fatalf("dray audit without a Redis = %d, %q", code, stderr)
	}
}
