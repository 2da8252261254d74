package inventory_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"dray/realtime/inventory"
	"dray/redisconn/redistest"
)

func TestWhatARedisWouldLoseIsToldAtTheStart(t *testing.T) {
	master := redistest.Start(t)
	var replicas []*redistest.Server
	for _, priority := range []string{"100", "50"} {
		replicas = append(replicas, redistest.Start(t, "--replicaof", "127.0.0.1 "+master.Node().String()[len("127.0.0.1:"):], "--replica-priority", priority))
	}
	client := redistest.Open(t, master.Config())
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		info, err := client.Redis().Info(t.Context(), "replication").Result()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(info, "connected_slaves:2") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no two replicas: %s", info)
		}
	}
	var log bytes.Buffer
	newStore(t, inventory.Config{Redis: client, Replicas: 3, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, want := range []string{"append-only", "fewer replicas", "unequal replica-priority", replicas[0].Addr()} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q: %s", want, &log)
		}
	}
}

func TestAnEvictingRedisIsRefused(t *testing.T) {
	client := redistest.Open(t, redistest.Start(t, "--maxmemory-policy", "allkeys-lru").Config())
	s, err := inventory.New(context.Background(), inventory.Config{Redis: client})
	if err == nil {
		s.Close(context.Background())
	}
	if err == nil || !strings.Contains(err.Error(), "maxmemory-policy") {
		t.Fatalf("New() = %v, want an error that names maxmemory-policy", err)
	}
	newStore(t, inventory.Config{Redis: client, AllowEviction: true})
}
