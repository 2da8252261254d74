package httpapi_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"dray"
)

// Opcodes of RFC 6455, and the bits beside them.
const (
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xA
	fin        = 0x80
	rsv1       = 0x40
	rsv2       = 0x20
	rsv3       = 0x10
	unmasked   = 0x100 // not on the wire: the frame goes without a mask
)

// frame is a client's frame: bits are its first byte, or unmasked.
func frame(bits int, payload string) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b := header(bits, uint64(len(payload)))
	if bits&unmasked != 0 {
		return append(b, payload...)
	}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

// header is a frame's header up to the mask, with the shortest length.
func header(bits int, length uint64) []byte {
	masked := byte(0x80)
	if bits&unmasked != 0 {
		masked = 0
	}
	switch {
	case length < 126:
		return []byte{byte(bits), masked | byte(length)}
	case length <= 0xffff:
		return binary.BigEndian.AppendUint16([]byte{byte(bits), masked | 126}, uint16(length))
	}
	return binary.BigEndian.AppendUint64([]byte{byte(bits), masked | 127}, length)
}

func closing(code uint16, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

const upgrade = "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"

// A rawSocket is a client that writes what it is told, byte by byte.
type rawSocket struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

// dialRaw opens a WebSocket and reads its welcome.
func dialRaw(t *testing.T, addr string) *rawSocket {
	t.Helper()
	s := dialTCP(t, addr)
	s.send([]byte(upgrade + "Sec-WebSocket-Protocol: dray.v1.json\r\n\r\n"))
	response, err := http.ReadResponse(s.in, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", response, err)
	}
	s.want(opText, `"type":"welcome"`)
	return s
}

func dialTCP(t *testing.T, addr string) *rawSocket {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &rawSocket{t, c, bufio.NewReader(c)}
}

// send writes; that the server has hung up meanwhile is for the reads to tell.
func (s *rawSocket) send(frames ...[]byte) {
	s.Write(bytes.Join(frames, nil))
}

// next reads one frame; io.EOF for any end of the connection but a time-out.
func (s *rawSocket) next() (op int, payload []byte, err error) {
	defer func() {
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			err = io.EOF
		}
	}()
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&(fin|rsv1|rsv2|rsv3) != fin || head[1]&0x80 != 0 {
		s.t.Fatalf("the server sent a frame that begins %x: want one unmasked, final frame", head)
	}
	length := uint64(head[1])
	switch length {
	case 126:
		var n uint16
		err = binary.Read(s.in, binary.BigEndian, &n)
		length = uint64(n)
	case 127:
		err = binary.Read(s.in, binary.BigEndian, &length)
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(s.in, payload)
	return int(head[0] & 0xf), payload, err
}

// want reads frames until one of this opcode comes, which must hold part.
func (s *rawSocket) want(op int, part string) {
	s.t.Helper()
	for {
		got, payload, err := s.next()
		if err != nil || got == opClose && op != opClose {
			s.t.Fatalf("waiting for a frame with %s: opcode %x, %q, %v", part, got, payload, err)
		}
		if got == op {
			if !bytes.Contains(payload, []byte(part)) {
				s.t.Fatalf("got %s, want it to hold %s", payload, part)
			}
			return
		}
	}
}

// ending reads to the end: the number of the close frame, 1005 for one without, -1 for a
// connection that was dropped.
func (s *rawSocket) ending() int {
	s.t.Helper()
	for {
		op, payload, err := s.next()
		if errors.Is(err, io.EOF) {
			return -1
		}
		if err != nil {
			s.t.Fatalf("waiting for the end: %v", err)
		}
		if op == opClose {
			if len(payload) < 2 {
				return 1005
			}
			return int(binary.BigEndian.Uint16(payload))
		}
	}
}

// ask shows that the connection is answered.
func (s *rawSocket) ask() {
	s.t.Helper()
	s.send(frame(fin|opText, `{"type":"unsubscribe","id":"still here"}`))
	s.want(opText, `"id":"still here","code":"not_found"`)
}

const dropped = -1

// What is no WebSocket, or no message, ends the connection that sent it, and nobody else's.
func TestBadFrames(t *testing.T) {
	addr := strings.TrimPrefix(start(t, nil).url, "http://")
	bystander := dialRaw(t, addr)
	over := strings.Repeat(" ", 256<<10)
	const limit = 256 << 10
	malformed := []int{1002, dropped}
	for _, c := range []struct {
		name string
		send [][]byte
		want []int
	}{
		{"unmasked frame", [][]byte{frame(fin|opText|unmasked, `{}`)}, malformed},
		{"first reserved bit", [][]byte{frame(fin|rsv1|opText, `{}`)}, malformed},
		{"second reserved bit", [][]byte{frame(fin|rsv2|opText, `{}`)}, malformed},
		{"third reserved bit", [][]byte{frame(fin|rsv3|opText, `{}`)}, malformed},
		{"unknown opcode 3", [][]byte{frame(fin|0x3, `{}`)}, malformed},
		{"unknown opcode 7", [][]byte{frame(fin|0x7, `{}`)}, malformed},
		{"unknown control opcode 11", [][]byte{frame(fin|0xB, ``)}, malformed},
		{"unknown control opcode 15", [][]byte{frame(fin|0xF, ``)}, malformed},
		{"ping of 126 bytes", [][]byte{frame(fin|opPing, over[:126])}, malformed},
		{"ping of 200,000 bytes", [][]byte{frame(fin|opPing, over[:200_000])}, malformed},
		{"pong of 126 bytes", [][]byte{frame(fin|opPong, over[:126])}, malformed},
		{"close of 126 bytes", [][]byte{frame(fin|opClose, closing(1000, over[:124]))}, malformed},
		{"fragmented ping", [][]byte{frame(opPing, `a`), frame(fin|opContinue, `b`)}, malformed},
		{"fragmented close", [][]byte{frame(opClose, closing(1000, ``))}, malformed},
		{"orphan continuation", [][]byte{frame(fin|opContinue, `{}`)}, malformed},
		{"orphan first continuation", [][]byte{frame(opContinue, `{}`)}, malformed},
		{"text inside a fragmented text", [][]byte{frame(opText, `{`), frame(fin|opText, `{}`)}, malformed},
		{"binary inside a fragmented text", [][]byte{frame(opText, `{`), frame(fin|opBinary, `{}`)}, malformed},
		{"continuation after the end", [][]byte{frame(opText, `{"type":"offline",`), frame(fin|opContinue, `"driver":"d"}`), frame(fin|opContinue, ``)}, malformed},
		{"close code 0", [][]byte{frame(fin|opClose, closing(0, ``))}, malformed},
		{"close code 999", [][]byte{frame(fin|opClose, closing(999, ``))}, malformed},
		{"close code 1004", [][]byte{frame(fin|opClose, closing(1004, ``))}, malformed},
		{"close code 1005", [][]byte{frame(fin|opClose, closing(1005, ``))}, malformed},
		{"close code 1006", [][]byte{frame(fin|opClose, closing(1006, ``))}, malformed},
		{"close code 1015", [][]byte{frame(fin|opClose, closing(1015, ``))}, malformed},
		{"close code 2999", [][]byte{frame(fin|opClose, closing(2999, ``))}, malformed},
		{"close code 5000", [][]byte{frame(fin|opClose, closing(5000, ``))}, malformed},
		{"close of one byte", [][]byte{frame(fin|opClose, "\x03")}, malformed},
		{"close reason not UTF-8", [][]byte{frame(fin|opClose, closing(1000, "\xff"))}, []int{1007, dropped}},
		{"close reason cut in a letter", [][]byte{frame(fin|opClose, closing(1000, "\xc3"))}, []int{1007, dropped}},
		{"length 2^63", [][]byte{header(fin|opText, 1<<63), make([]byte, 64)}, []int{1002, 1009, dropped}},
		{"length 2^64-1", [][]byte{header(fin|opText, 1<<64-1), make([]byte, 64)}, []int{1002, 1009, dropped}},
		{"length 2^63-1", [][]byte{header(fin|opText, 1<<63-1), make([]byte, 64+limit)}, []int{1009, dropped}},
		{"continuation of length 2^63", [][]byte{frame(opText, `{`), header(fin|opContinue, 1<<63), make([]byte, 64)}, []int{1002, 1009, dropped}},
		{"text not UTF-8", [][]byte{frame(fin|opText, "{\"type\":\"auth\",\"token\":\"\xff\"}")}, []int{1007}},
		{"text that is no JSON and not UTF-8", [][]byte{frame(fin|opText, "\xc0\xaf")}, []int{1007}},
		{"surrogate in text", [][]byte{frame(fin|opText, "\"\xed\xa0\x80\"")}, []int{1007}},
		{"text not UTF-8 over two fragments", [][]byte{frame(opText, "{\"type\":\"auth\",\"token\":\"\xe2\x82"), frame(fin|opContinue, "(\"}")}, []int{1007}},
		{"text cut in a letter", [][]byte{frame(fin|opText, "\"\xe2\x82")}, []int{1007}},
		{"binary frame", [][]byte{frame(fin|opBinary, `{"type":"offline","driver":"d"}`)}, []int{1003}},
		{"fragmented binary", [][]byte{frame(opBinary, `{"type":"offline",`), frame(fin|opContinue, `"driver":"d"}`)}, []int{1003}},
		{"message over the limit", [][]byte{frame(fin|opText, over+" ")}, []int{1009}},
		{"message of 64 MiB announced", [][]byte{header(fin|opText, 64<<20), make([]byte, limit+64)}, []int{1009}},
		{"fragments over the limit", [][]byte{frame(opText, over[:limit/2]), frame(opContinue, over[:limit/2]), frame(fin|opContinue, " ")}, []int{1009}},
		{"close", [][]byte{frame(fin|opClose, closing(1000, "bye"))}, []int{1000}},
		{"close with a number of its own", [][]byte{frame(fin|opClose, closing(4999, "tschüss"))}, []int{4999}},
		{"close without a number", [][]byte{frame(fin|opClose, ``)}, []int{1005, 1000}},
		{"close inside a fragmented text", [][]byte{frame(opText, `{`), frame(fin|opClose, closing(1001, ``))}, []int{1001}},
		{"end of the stream inside a frame", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dialRaw(t, addr)
			if c.send == nil {
				s.send(frame(fin|opText, `{"type":"offline","driver":"d"}`)[:9])
				s.CloseWrite()
				c.want = []int{dropped}
			}
			s.send(c.send...)
			if got := s.ending(); !slices.Contains(c.want, got) {
				t.Errorf("the connection ended with %d, want one of %d", got, c.want)
			}
			bystander.ask()
		})
	}
}

// The close frame names the limit of a message.
func TestTooBigNamesTheLimit(t *testing.T) {
	s := dialRaw(t, strings.TrimPrefix(start(t, nil).url, "http://"))
	s.send(frame(fin|opText, strings.Repeat(" ", 256<<10+1)))
	s.want(opClose, "message over 262144 bytes")
}

// CloseWrite ends the client's half.
func (s *rawSocket) CloseWrite() { s.Conn.(*net.TCPConn).CloseWrite() }

// What is unusual but allowed is answered.
func TestOddFrames(t *testing.T) {
	addr := strings.TrimPrefix(start(t, nil).url, "http://")
	const question = `{"type":"unsubscribe","id":"é"}`
	cut := strings.Index(question, "é") + 1 // inside the letter
	answer := `"id":"é","code":"not_found"`
	for _, c := range []struct {
		name string
		send [][]byte
		want []string // opcode and part
	}{
		{"fragments cut inside a letter", [][]byte{frame(opText, question[:cut]), frame(fin|opContinue, question[cut:])}, []string{answer}},
		{"fragments with pings between", [][]byte{frame(opText, question[:3]), frame(fin|opPing, "one"), frame(opContinue, question[3:cut]), frame(fin|opPing, "two"), frame(fin|opContinue, question[cut:])}, []string{answer}},
		{"fragments with empty ones", [][]byte{frame(opText, ""), frame(opContinue, question), frame(opContinue, ""), frame(fin|opContinue, "")}, []string{answer}},
		{"unasked pong", [][]byte{frame(fin|opPong, "?"), frame(fin|opText, question)}, []string{answer}},
		{"message of the limit", [][]byte{frame(fin|opText, question+strings.Repeat(" ", 256<<10-len(question)))}, []string{answer}},
		{"fragments of the limit", [][]byte{frame(opText, question), frame(fin|opContinue, strings.Repeat(" ", 256<<10-len(question)))}, []string{answer}},
		{"many in one write", slices.Repeat([][]byte{frame(fin|opText, question)}, 50), slices.Repeat([]string{answer}, 50)},
		{"length longer than need be", [][]byte{append([]byte{fin | opText, 0x80 | 127}, append(binary.BigEndian.AppendUint64(nil, uint64(len(question))), frame(fin|opText, question)[2:]...)...)}, []string{answer}},
		{"empty text", [][]byte{frame(fin|opText, "")}, []string{`"code":"bad_request"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dialRaw(t, addr)
			s.send(c.send...)
			for _, want := range c.want {
				s.want(opText, want)
			}
			s.ask()
		})
	}
	t.Run("ping is answered with its payload", func(t *testing.T) {
		s := dialRaw(t, addr)
		payload := strings.Repeat("p", 125)
		s.send(frame(fin|opPing, payload))
		s.want(opPong, payload)
		s.send(frame(fin|opPing, ""))
		s.want(opPong, "")
		s.send(frame(opText, question[:3]), frame(fin|opPing, "between"))
		s.want(opPong, "between")
		s.send(frame(fin|opContinue, question[3:]))
		s.want(opText, answer)
	})
	t.Run("byte by byte", func(t *testing.T) {
		s := dialRaw(t, addr)
		for _, b := range frame(fin|opText, question) {
			s.send([]byte{b})
		}
		s.want(opText, answer)
	})
	t.Run("with the handshake in one write", func(t *testing.T) {
		s := dialTCP(t, addr)
		s.send([]byte(upgrade+"\r\n"), frame(fin|opText, question), frame(fin|opPing, "early"))
		response, err := http.ReadResponse(s.in, nil)
		if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("handshake: %v, %v", response, err)
		}
		s.want(opText, `"type":"welcome"`)
		s.want(opText, answer)
	})
	t.Run("compression is not taken up", func(t *testing.T) {
		s := dialTCP(t, addr)
		s.send([]byte(upgrade + "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"))
		response, err := http.ReadResponse(s.in, nil)
		if err != nil || response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Extensions") != "" {
			t.Fatalf("handshake: %v, %v", response, err)
		}
	})
}

// After 20 messages in a minute that are not of the contract's form, the door closes.
func TestBadMessagesCloseAtLast(t *testing.T) {
	addr := strings.TrimPrefix(start(t, nil).url, "http://")
	s, bystander := dialRaw(t, addr), dialRaw(t, addr)
	for range 20 {
		s.send(frame(fin|opText, `[]`))
		s.want(opText, `"code":"bad_request"`)
	}
	s.ask()
	s.send(slices.Repeat(frame(fin|opText, `[]`), 5))
	if got := s.ending(); got != dray.ClosePolicy {
		t.Errorf("the connection ended with %d, want %d", got, dray.ClosePolicy)
	}
	bystander.ask()
}

// What is no handshake of ours is refused with a status, or cut.
func TestBadHandshakes(t *testing.T) {
	addr := strings.TrimPrefix(start(t, nil).url, "http://")
	without := func(line string) string {
		rest, found := "", false
		for l := range strings.SplitSeq(upgrade, "\r\n") {
			if strings.HasPrefix(l, line) {
				found = true
			} else if l != "" {
				rest += l + "\r\n"
			}
		}
		if !found {
			t.Fatalf("no line %s", line)
		}
		return rest + "\r\n"
	}
	for name, c := range map[string]struct {
		request string
		want    []int
	}{
		"no upgrade":            {"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{400, 426}},
		"no Connection":         {without("Connection"), []int{400, 426}},
		"no Upgrade":            {without("Upgrade"), []int{400, 426}},
		"no version":            {without("Sec-WebSocket-Version"), []int{400, 426}},
		"version 12":            {strings.Replace(upgrade, "Version: 13", "Version: 12", 1) + "\r\n", []int{400, 426}},
		"no key":                {without("Sec-WebSocket-Key"), []int{400}},
		"short key":             {strings.Replace(upgrade, "AQIDBAUGBwgJCgsMDQ4PEA==", "AQID", 1) + "\r\n", []int{400}},
		"key is no base64":      {strings.Replace(upgrade, "AQIDBAUGBwgJCgsMDQ4PEA==", "*QIDBAUGBwgJCgsMDQ4PEA==", 1) + "\r\n", []int{400}},
		"two keys":              {upgrade + "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n", []int{400}},
		"POST":                  {strings.Replace(upgrade, "GET", "POST", 1) + "Content-Length: 0\r\n\r\n", []int{400, 405}},
		"HTTP/1.0":              {strings.Replace(upgrade, "HTTP/1.1", "HTTP/1.0", 1) + "\r\n", []int{400, 426, 505}},
		"no Host":               {without("Host"), []int{400}},
		"another subprotocol":   {upgrade + "Sec-WebSocket-Protocol: mqtt, dray.v2.json\r\n\r\n", []int{400}},
		"another site":          {upgrade + "Origin: https://evil.example\r\n\r\n", []int{403}},
		"no site":               {upgrade + "Origin: null\r\n\r\n", []int{403}},
		"two Content-Lengths":   {upgrade + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", []int{400}},
		"header of 1 MiB":       {upgrade + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", []int{431, dropped}},
		"10,000 header lines":   {upgrade + strings.Repeat("X: y\r\n", 10_000) + "\r\n", []int{431, dropped}},
		"no HTTP":               {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []int{400, dropped}},
		"space in a field name": {upgrade + "Bad Name: x\r\n\r\n", []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dialTCP(t, addr)
			go s.send([]byte(c.request))
			status := dropped
			if response, err := http.ReadResponse(s.in, nil); err == nil {
				status = response.StatusCode
				if kind := response.Header.Get("Content-Type"); status == 403 && kind != "application/problem+json" {
					t.Errorf("the refusal is %q, want a problem document", kind)
				}
			} else if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("neither answered nor cut")
			}
			if !slices.Contains(c.want, status) {
				t.Errorf("the handshake was answered %d, want one of %d", status, c.want)
			}
		})
	}
}
