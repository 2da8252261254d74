package redisconn_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dray/redisconn"
)

func TestNamesAreThoseTheFileSets(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte("export REDIS_HOTS='a'\n# REDIS_DB=1\nA=\"b=c\" # REDIS_PORT=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := redisconn.Names(path); err != nil || !slices.Equal(got, []string{"A", "REDIS_HOTS"}) {
		t.Errorf("Names() = %q, %v, want A and REDIS_HOTS", got, err)
	}
	if got, err := redisconn.Names(path + "none"); err != nil || len(got) > 0 {
		t.Errorf("Names() of no file = %q, %v, want none", got, err)
	}
}

func TestVariablesAreAllOfThem(t *testing.T) {
	got := redisconn.Variables()
	slices.Sort(got)
	want := []string{"REDIS_CLUSTER_NODES", "REDIS_DB", "REDIS_HOST", "REDIS_KEY_PREFIX", "REDIS_PASSWORD", "REDIS_PORT",
		"REDIS_SENTINELS", "REDIS_SENTINEL_NAME", "REDIS_TLS", "REDIS_URL", "REDIS_USERNAME"}
	if !slices.Equal(got, want) {
		t.Errorf("Variables() = %q, want %q", got, want)
	}
}

func TestOnlyKubernetesIsBlamedForItsPorts(t *testing.T) {
	for port, want := range map[string]bool{"tcp://10.0.0.1:6379": true, "6379x": false} {
		_, err := redisconn.FromLookup(func(name string) (string, bool) { return port, name == "REDIS_PORT" })
		if err == nil || strings.Contains(err.Error(), "Kubernetes") != want {
			t.Errorf("REDIS_PORT=%s: %v, want Kubernetes named: %v", port, err, want)
		}
	}
}
