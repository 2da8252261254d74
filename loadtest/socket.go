package loadtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A socket is a WebSocket client (RFC 6455) with what a load needs and no more: whole text
// messages, each one frame, masked with zeros. One goroutine reads; any may write.
type socket struct {
	conn net.Conn
	buf  []byte
	r, w int // buf[r:w] is read from conn and not yet taken

	mu sync.Mutex // held while writing
}

const (
	firstRead    = 2 << 10  // bytes of buffer, which grows with what comes
	largestFrame = 64 << 20 // bytes
	dialWait     = 20 * time.Second
)

// dial makes the handshake.
func dial(ctx context.Context, address string) (*socket, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	host := u.Host
	var conn net.Conn
	if u.Scheme == "wss" {
		if u.Port() == "" {
			host += ":443"
		}
		conn, err = new(tls.Dialer).DialContext(ctx, "tcp", host)
	} else {
		if u.Port() == "" {
			host += ":80"
		}
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", host)
	}
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, buf: make([]byte, firstRead)}
	conn.SetDeadline(time.Now().Add(dialWait))
	if err := s.handshake(u); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return s, nil
}

func (s *socket) handshake(u *url.URL) error {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	_, err := fmt.Fprintf(s.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: dray.v1.json\r\n\r\n", u.RequestURI(), u.Host, key)
	if err != nil {
		return err
	}
	for {
		if end := bytes.Index(s.buf[:s.w], []byte("\r\n\r\n")); end >= 0 {
			head := string(s.buf[:end])
			s.r = end + 4
			status, rest, _ := strings.Cut(head, "\r\n")
			if !strings.HasPrefix(status, "HTTP/1.1 101") {
				return fmt.Errorf("the server answered %q", status)
			}
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			if !strings.Contains(rest, base64.StdEncoding.EncodeToString(sum[:])) {
				return fmt.Errorf("the server is no WebSocket server (%s)", http.StatusText(http.StatusSwitchingProtocols))
			}
			return nil
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// fill reads more from the connection, making room where there is none.
func (s *socket) fill() error {
	switch {
	case s.r == s.w:
		s.r, s.w = 0, 0
	case s.w == len(s.buf) && s.r > 0:
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	if s.w == len(s.buf) {
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.conn.Read(s.buf[s.w:])
	s.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// need makes n bytes available.
func (s *socket) need(n int) error {
	for s.w-s.r < n {
		if err := s.fill(); err != nil {
			return err
		}
	}
	return nil
}

// Opcodes and bits of RFC 6455.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
	final   = 0x80
	masked  = 0x80
)

// A closedError is a close frame of the server.
type closedError struct {
	code   int
	reason string
}

func (e *closedError) Error() string {
	return fmt.Sprintf("the server closed the connection (%d %s)", e.code, e.reason)
}

// read returns the next text message. It is valid until the next read. Pings are answered.
func (s *socket) read() ([]byte, error) {
	for {
		if err := s.need(2); err != nil {
			return nil, err
		}
		first, length, size := s.buf[s.r], int(s.buf[s.r+1]), 2
		switch length {
		case 126:
			size = 4
		case 127:
			size = 10
		}
		if err := s.need(size); err != nil {
			return nil, err
		}
		switch size {
		case 4:
			length = int(binary.BigEndian.Uint16(s.buf[s.r+2:]))
		case 10:
			length = int(min(binary.BigEndian.Uint64(s.buf[s.r+2:]), 1<<40))
		}
		if length > largestFrame {
			return nil, fmt.Errorf("a frame of %d bytes", length)
		}
		if err := s.need(size + length); err != nil {
			return nil, err
		}
		payload := s.buf[s.r+size : s.r+size+length]
		s.r += size + length
		switch first {
		case final | opText:
			return payload, nil
		case final | opPing:
			if err := s.write(finish(append(begin(nil), payload...), opPong)); err != nil {
				return nil, err
			}
		case final | opPong:
		case final | opClose:
			e := &closedError{code: 1005}
			if length >= 2 {
				e.code, e.reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
			}
			return nil, e
		default:
			return nil, fmt.Errorf("a frame of kind %#x, which is none that dray sends", first)
		}
	}
}

// write sends a frame that finish made.
func (s *socket) write(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.conn.Write(frame)
	return err
}

func (s *socket) close() { s.conn.Close() }

// A frame is made in a buffer that begins with room for the longest header: begin, append
// the payload, finish.
const headerRoom = 14

func begin(buf []byte) []byte {
	if cap(buf) < headerRoom {
		return make([]byte, headerRoom, 512)
	}
	return buf[:headerRoom]
}

// finish writes the header in front of the payload, and returns the frame.
func finish(b []byte, op byte) []byte {
	n := len(b) - headerRoom
	clear(b[:headerRoom]) // the mask is zero, so that the payload need not be touched
	start := headerRoom - 4
	switch {
	case n < 126:
		start -= 2
		b[start+1] = masked | byte(n)
	case n <= 0xffff:
		start -= 4
		b[start+1] = masked | 126
		binary.BigEndian.PutUint16(b[start+2:], uint16(n))
	default:
		start -= 10
		b[start+1] = masked | 127
		binary.BigEndian.PutUint64(b[start+2:], uint64(n))
	}
	b[start] = final | op
	return b[start:]
}
