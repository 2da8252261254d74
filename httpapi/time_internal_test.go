package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray"
)

// What happens when is tested in bubbles of testing/synctest. Their clock moves only while
// everybody waits, so an hour costs nothing, a loaded machine is late for nothing, and what is
// due at a moment comes at that moment. A socket of the kernel would hold it up: here they are
// pipes, which have no buffer, so that what a client has not read was not written.

// pipes is a listener whose connections are pipes.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if nc, ok := <-p; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return nil }

// connect is a plain connection.
func (p pipes) connect() net.Conn {
	near, far := net.Pipe()
	p <- far
	return near
}

// dial opens a WebSocket.
func (p pipes) dial(t *testing.T, o websocket.DialOptions) *websocket.Conn {
	t.Helper()
	o.HTTPClient = &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return p.connect(), nil },
	}}
	return dialWith(t, "http://localhost", &o)
}

// raw opens a WebSocket whose client writes what it is told, byte by byte.
func (p pipes) raw(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc := p.connect()
	t.Cleanup(func() { nc.Close() })
	io.WriteString(nc, handshake+"\r\n")
	in := bufio.NewReader(nc)
	if response, err := http.ReadResponse(in, nil); err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", response, err)
	}
	if _, payload, err := readFrame(in); !bytes.Contains(payload, []byte(`"welcome"`)) {
		t.Fatalf("got %q, %v, want welcome", payload, err)
	}
	return nc, in
}

const handshake = "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"

// readFrame reads a frame of the server of up to 64 KiB.
func readFrame(in *bufio.Reader) (op byte, payload []byte, err error) {
	head := make([]byte, 4)
	if _, err = io.ReadFull(in, head[:2]); err != nil {
		return 0, nil, err
	}
	n := int(head[1])
	if n == 126 {
		_, err = io.ReadFull(in, head[2:])
		n = int(binary.BigEndian.Uint16(head[2:]))
	}
	payload = make([]byte, n)
	if err == nil {
		_, err = io.ReadFull(in, payload)
	}
	return head[0] & 0xf, payload, err
}

// inBubble runs a test in a bubble, with a Server on stand-ins for the floors below.
func inBubble(t *testing.T, cfg Config, l locations, h hub, test func(t *testing.T, s *Server, p pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := New(cfg)
		s.locations, s.hub = l, h
		p := make(pipes)
		server := s.HTTPServer()
		go server.Serve(p)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			s.Shutdown(ctx)
			server.Close()
		})
		test(t, s, p)
	})
}

func TestSilentClientIsClosed(t *testing.T) {
	inBubble(t, Config{}, new(heldStore), nil, func(t *testing.T, s *Server, p pipes) {
		began := time.Now()
		var pings []time.Duration
		ws := p.dial(t, websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
			pings = append(pings, time.Since(began))
			return false // it answers none
		}})
		if got := closeOf(ws); got != dray.CloseTooSlow {
			t.Errorf("closed with %d, want 4008", got)
		}
		if took := time.Since(began); took > 30*time.Second || took < 29*time.Second || !slices.Equal(pings, []time.Duration{15 * time.Second}) {
			t.Errorf("pinged after %v and closed after %v, want after 15 s and within the last of 30 s", pings, took)
		}
		ws.CloseNow()
		synctest.Wait()
		if n := testutil.ToFloat64(s.m.connections); n != 0 {
			t.Errorf("%v connections, want none", n)
		}
	})
}

func TestClientThatAnswersPingsStays(t *testing.T) {
	inBubble(t, Config{}, new(heldStore), nil, func(t *testing.T, s *Server, p pipes) {
		pings := 0
		ws := p.dial(t, websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
			pings++
			return true
		}})
		ctx := ws.CloseRead(t.Context())
		time.Sleep(time.Hour)
		synctest.Wait()
		if ctx.Err() != nil || pings != 240 || testutil.ToFloat64(s.m.connections) != 1 {
			t.Errorf("%v after an hour and %d pings, want it open and one in 15 s", ctx.Err(), pings)
		}
	})
}

func TestReaderThatNeverReadsIsClosed(t *testing.T) {
	h := &loudHub{size: 100_000}
	inBubble(t, Config{}, new(heldStore), h, func(t *testing.T, s *Server, p pipes) {
		other := p.dial(t, websocket.DialOptions{})
		otherCtx := other.CloseRead(t.Context())
		ws := p.dial(t, websocket.DialOptions{})
		send(t, ws, `{"type":"subscribe","id":1,"drivers":["a"],"intervalMs":0}`)
		time.Sleep(28 * time.Second)
		if n := testutil.ToFloat64(s.m.connections); n != 2 {
			t.Fatalf("%v connections after 28 s, want both", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n, stalled := testutil.ToFloat64(s.m.connections), testutil.ToFloat64(s.m.stalled); n != 1 || stalled != 1 {
			t.Fatalf("%v connections after 30 s, %v called stalled, want 1 of 2", n, stalled)
		}
		<-h.subs[0].closed
		if n := h.subs[0].version; n != 1 {
			t.Errorf("%d frames were made for it, want no other while one is not taken", n)
		}
		if otherCtx.Err() != nil {
			t.Error("the other client is gone too")
		}
	})
}

// Time in which the server does not read is not the client's silence.
func TestBackPressureIsNotSilence(t *testing.T) {
	store := &heldStore{}
	inBubble(t, Config{}, store, nil, func(t *testing.T, s *Server, p pipes) {
		store.gate = make(chan struct{})
		ws := p.dial(t, websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool { return false }})
		send(t, ws, aPosition, 1)
		time.AfterFunc(10*time.Minute, func() {
			close(store.gate)
			synctest.Wait()
			store.settle(0)
		})
		if _, got, err := ws.Read(t.Context()); string(got) != `{"type":"ack","seq":1}` {
			t.Errorf("got %s, %v, want the ack", got, err)
		}
	})
}

// A client that takes a large message slowly but steadily is no silent one, though it is not
// pinged meanwhile and says nothing.
func TestSlowButSteadyReaderStays(t *testing.T) {
	inBubble(t, Config{}, new(heldStore), newBigHub(8<<10, 1<<10), func(t *testing.T, s *Server, p pipes) {
		ws := p.dial(t, websocket.DialOptions{})
		send(t, ws, `{"type":"subscribe","id":1,"drivers":["a"]}`)
		for range 2 { // the snapshot and the delta
			_, r, err := ws.Reader(t.Context())
			for err == nil {
				time.Sleep(2 * time.Second)
				_, err = io.CopyN(io.Discard, r, 64<<10)
			}
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		ctx := ws.CloseRead(t.Context())
		time.Sleep(time.Minute)
		if ctx.Err() != nil {
			t.Error("closed after all was taken")
		}
	})
}

func TestAckCoversAllBefore(t *testing.T) {
	store := new(heldStore)
	inBubble(t, Config{}, store, nil, func(t *testing.T, s *Server, p pipes) {
		ws := p.dial(t, websocket.DialOptions{})
		began := time.Now()
		position := func(seq int) {
			send(t, ws, aPosition, seq)
			synctest.Wait()
		}
		ack := func(seq int, at time.Duration) {
			t.Helper()
			if got, want := read(t, ws), fmt.Sprintf(`{"type":"ack","seq":%d}`, seq); got != want || time.Since(began) != at {
				t.Fatalf("got %s after %v, want %s after %v", got, time.Since(began), want, at)
			}
		}
		for seq := range 4 {
			position(seq + 1)
		}
		for _, i := range []int{2, 1, 0} {
			store.settle(i)
		}
		ack(3, 0) // 4 is not settled
		time.Sleep(100 * time.Millisecond)
		store.settle(3)
		time.Sleep(100 * time.Millisecond)
		position(5)
		store.settle(4)
		ack(5, ackEvery) // one for 4 and 5
		time.Sleep(time.Second)
		position(6)
		store.settle(5)
		ack(6, ackEvery+time.Second) // the last is long ago
	})
}

// What Redis does not settle holds up a drain for so long only.
func TestDrainGivesUpOnWhatIsNotSettled(t *testing.T) {
	store := new(heldStore)
	inBubble(t, Config{}, store, &loudHub{}, func(t *testing.T, s *Server, p pipes) {
		ws := p.dial(t, websocket.DialOptions{})
		send(t, ws, aPosition, 7)
		synctest.Wait()
		began := time.Now()
		go s.Shutdown(context.Background())
		if got := read(t, ws); !strings.Contains(got, `"goodbye"`) || time.Since(began) != settleOnExit {
			t.Errorf("got %s after %v, want goodbye after %v", got, time.Since(began), settleOnExit)
		}
		if got := closeOf(ws); got != dray.CloseRestart {
			t.Errorf("closed with %d, want 1012", got)
		}
	})
}

func TestFlood(t *testing.T) {
	inBubble(t, Config{MessagesPerSecond: 200}, new(heldStore), nil, func(t *testing.T, s *Server, p pipes) {
		ws, other := p.dial(t, websocket.DialOptions{}), p.dial(t, websocket.DialOptions{})
		began, limited := time.Now(), time.Duration(0)
		var flood sync.WaitGroup
		defer flood.Wait()
		flood.Go(func() {
			for ws.Write(context.Background(), websocket.MessageText, []byte(`{"type":"auth","id":1,"token":"t"}`)) == nil {
				time.Sleep(time.Millisecond)
			}
		})
		for {
			_, b, err := ws.Read(t.Context())
			if err != nil {
				if took := time.Since(began); websocket.CloseStatus(err) != dray.CloseFlooding || limited == 0 || took < limited+2*refusal || took > limited+2*refusal+time.Second/10 {
					t.Errorf("ended with %v after %v, refused since %v, want 4029 after two refusals", err, took, limited)
				}
				break
			}
			if limited == 0 && strings.Contains(string(b), `"rate_limited"`) {
				// its burst lasts for half a second
				if limited = time.Since(began); !strings.Contains(string(b), `"retryAfterMs":1000`) || limited < patience || limited > patience+time.Second {
					t.Errorf("after %v got %s, want back-pressure first, then retryAfterMs", limited, b)
				}
			}
		}
		send(t, other, `{"type":"auth","id":2,"token":"t"}`)
		if got := read(t, other); got != `{"type":"ok","id":2}` {
			t.Errorf("the other client got %s, want ok", got)
		}
	})
}

// Frames that carry nothing have a budget too.
func TestFrameFloods(t *testing.T) {
	frame := func(first byte, payload string) []byte {
		b := masked(nil, payload)
		b[0] = first
		return b
	}
	fragment, empty, more := frame(opText, "{"), frame(opMore, ""), frame(opMore, " ")
	ping, pong := frame(final|opPing, "ping"), frame(final|opPong, "")
	for name, c := range map[string]struct {
		first, flood []byte
		frames       int // of flood
	}{
		"empty fragments":         {fragment, empty, 1},
		"pings":                   {nil, ping, 1},
		"pongs":                   {nil, pong, 1},
		"pings between fragments": {fragment, append(more, ping...), 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, new(heldStore), nil, func(t *testing.T, s *Server, p pipes) {
				bystander := p.dial(t, websocket.DialOptions{})
				nc, in := p.raw(t)
				ended := make(chan int, 1)
				go func() {
					op, payload, err := readFrame(in)
					for err == nil && op != opClose {
						op, payload, err = readFrame(in)
					}
					ended <- int(binary.BigEndian.Uint16(append(payload, 0, 0)))
				}()
				within := func(budget int) {
					t.Helper()
					nc.Write(bytes.Repeat(c.flood, budget/c.frames))
					synctest.Wait()
					select {
					case code := <-ended:
						t.Fatalf("ended with %d within its budget", code)
					default:
					}
				}
				nc.Write(c.first)
				within(extraBurst)
				time.Sleep(time.Second)
				within(extraFrames)
				go nc.Write(bytes.Repeat(c.flood, 20_000))
				if code := <-ended; code != dray.CloseFlooding {
					t.Errorf("the connection ended with %d, want %d", code, dray.CloseFlooding)
				}
				send(t, bystander, `{"type":"auth","id":2,"token":"t"}`)
				if got := read(t, bystander); got != `{"type":"ok","id":2}` {
					t.Errorf("the bystander got %s, want ok", got)
				}
			})
		})
	}
}

// A length that a frame only announces costs no memory.
func TestAnnouncedLengthCostsNothing(t *testing.T) {
	inBubble(t, Config{}, new(heldStore), nil, func(t *testing.T, s *Server, p pipes) {
		var sockets []net.Conn
		for range 20 {
			nc, _ := p.raw(t)
			sockets = append(sockets, nc)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, nc := range sockets {
			nc.Write(append(binary.BigEndian.AppendUint64([]byte{final | opText, 0x80 | 127}, 255<<10), "mask and only this much"...))
		}
		synctest.Wait() // until all of it is read
		runtime.ReadMemStats(&after)
		if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 20*100<<10 {
			t.Errorf("20 frames that announce 255 KiB each made the server allocate %d KiB", grown>>10)
		}
	})
}

// Whoever stalls before a WebSocket or an answer comes of it is cut, also if it trickles.
func TestStalledRequestsAreCut(t *testing.T) {
	const (
		headers = 5 * time.Second
		rest    = 30 * time.Second
	)
	for name, c := range map[string]struct {
		request, trickle string
		cut              time.Duration
	}{
		"silence":                 {"", "", headers},
		"handshake that stalls":   {handshake, "", headers},
		"headers byte by byte":    {handshake, "X: y\r\n", headers},
		"body byte by byte":       {"PUT /v1/drivers/slow/position HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n", " ", rest},
		"keep-alive that is idle": {"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", "", rest},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, new(heldStore), nil, func(t *testing.T, s *Server, p pipes) {
				nc := p.connect()
				began := time.Now()
				var writer sync.WaitGroup
				defer writer.Wait()
				defer nc.Close()
				writer.Go(func() {
					_, err := io.WriteString(nc, c.request)
					for i := 0; err == nil && c.trickle != ""; i++ {
						time.Sleep(100 * time.Millisecond)
						_, err = nc.Write([]byte{c.trickle[i%len(c.trickle)]})
					}
				})
				if b, err := io.ReadAll(nc); err != nil || time.Since(began) < c.cut || time.Since(began) > c.cut+time.Second {
					t.Errorf("got %q, %v after %v, want it to be cut after %v", b, err, time.Since(began), c.cut)
				}
			})
		})
	}
}
