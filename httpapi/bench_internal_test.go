package httpapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/realtime/location"
)

// A nullStore stores nothing, at once.
type nullStore struct{ locations }

func (nullStore) Submit(ctx context.Context, positions []dray.Position, r location.Receiver, first uint64) error {
	for i := range positions {
		r.Reported(first+uint64(i), location.Stored, nil)
	}
	return nil
}

// rawClient opens a WebSocket on a plain socket and reads its welcome's beginning.
func rawClient(b testing.TB, addr string) net.Conn {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	fmt.Fprintf(nc, "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n")
	buf := make([]byte, 4096)
	if _, err := nc.Read(buf); err != nil {
		b.Fatal(err)
	}
	return nc
}

// masked is a client's text frame, its mask zero.
func masked(dst []byte, payload string) []byte {
	dst = append(dst, final|opText)
	if len(payload) < 126 {
		dst = append(dst, 0x80|byte(len(payload)))
	} else {
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(len(payload)))
	}
	return append(append(dst, 0, 0, 0, 0), payload...)
}

func benchServer(b testing.TB) (*Server, string) {
	s := New(Config{MessagesPerSecond: -1})
	s.locations = nullStore{}
	ts := httptest.NewServer(s.Handler())
	b.Cleanup(func() {
		s.Shutdown(context.Background())
		ts.Close()
	})
	return s, strings.TrimPrefix(ts.URL, "http://")
}

// Positions streamed over one connection, stored nowhere: what the edge itself costs.
func BenchmarkStream(b *testing.B) {
	_, addr := benchServer(b)
	nc := rawClient(b, addr)
	defer nc.Close()
	acked := make(chan struct{})
	last := fmt.Sprintf(`{"type":"ack","seq":%d}`, b.N-1)
	go func() {
		defer close(acked)
		buf := make([]byte, 4096)
		for {
			n, err := nc.Read(buf)
			if err != nil || bytes.Contains(buf[:n], []byte(last)) {
				return
			}
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	var frames []byte
	for i := range b.N {
		frames = masked(frames, fmt.Sprintf(`{"type":"position","driver":"driver-1","latitude":24.8607,"longitude":67.0011,"timestamp":1764000000000,"seq":%d}`, i))
		if len(frames) > 16<<10 || i == b.N-1 {
			if _, err := nc.Write(frames); err != nil {
				b.Fatal(err)
			}
			frames = frames[:0]
		}
	}
	<-acked
}

// A batch and its ok, one after the other.
func BenchmarkBatchAndOK(b *testing.B) {
	_, addr := benchServer(b)
	nc := rawClient(b, addr)
	defer nc.Close()
	frame := masked(nil, `{"type":"positions","id":1,"positions":[{"driver":"driver-1","latitude":24.8607,"longitude":67.0011,"timestamp":1764000000000}]}`)
	answer := make([]byte, len(`00{"type":"ok","id":1,"accepted":1,"superseded":0,"rejected":[]}`))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		nc.Write(frame)
		if _, err := io.ReadFull(nc, answer); err != nil {
			b.Fatal(err)
		}
	}
}

// busy tells whether something is to be written.
func (c *conn) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writer || c.pendingLocked()
}

// What an idle connection holds, in the heap and in stacks.
func BenchmarkIdleConnection(b *testing.B) {
	s, addr := benchServer(b)
	var before, after runtime.MemStats
	for b.Loop() {
		const n = 1000
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		var all []net.Conn
		for range n {
			all = append(all, rawClient(b, addr))
		}
		for _, c := range s.all(nil) {
			for c.busy() {
				time.Sleep(time.Millisecond)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "heap-B/conn")
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/n, "stack-B/conn")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/n, "goroutines/conn")
		for _, nc := range all {
			nc.Close()
		}
		for len(s.all(nil)) > 0 {
			time.Sleep(time.Millisecond)
		}
	}
}
