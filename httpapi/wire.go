package httpapi

import (
	"bufio"
	"encoding/binary"
	"net"
	"net/http"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"dray"
)

// A wire stands between a socket and coder/websocket. It counts the frames that come in, and
// instead of letting the library write to the socket (a frame each, from the reader's
// goroutine, with timers) it hands the frames that the library answers by itself, pongs and
// closes, to the connection's queue. So there is one writer, it puts many frames into one
// system call, and a client that does not read cannot stop its own messages from being read.
type wire struct {
	net.Conn
	conn  *conn        // set once the handshake is over, before the first read
	heard atomic.Int64 // Unix nanoseconds of the last byte that came
	count frameCounter
	extra bucket // frames that are no first frame of a message
}

// Budget of frames that carry no message of their own: pings, pongs and continuations.
const (
	extraFrames = 1000 // a second
	extraBurst  = 3000
)

// Read is for the one reader. Frames over the budget end the connection.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		c := w.conn
		now := c.s.cfg.Now()
		w.heard.Store(now.UnixNano())
		c.s.m.bytesIn.Add(float64(n))
		if extra := w.count.add(p[:n]); extra > 0 && w.extra.take(now, float64(extra)) < 0 {
			c.end(dray.CloseFlooding, "too many frames")
			return 0, net.ErrClosed
		}
	}
	return n, err
}

// Write takes one whole control frame of the library; it never blocks.
func (w *wire) Write(p []byte) (int, error) {
	w.conn.control(p)
	return len(p), nil
}

// Close leaves the socket to the connection, which has a close frame to write first.
func (w *wire) Close() error { return nil }

func (w *wire) SetDeadline(time.Time) error { return nil }

// A frameCounter follows the frames of a client (RFC 6455, section 5.2) without looking at
// what they hold.
type frameCounter struct {
	head [10]byte // of the frame that begins: as much of it as came
	n    int
	skip uint64 // bytes of the current frame still to come
}

// add counts the frames that begin in p and are no first frame of a message.
func (f *frameCounter) add(p []byte) (extra int) {
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, uint64(len(p)))
			f.skip -= n
			p = p[n:]
			continue
		}
		f.head[f.n] = p[0]
		f.n++
		p = p[1:]
		if f.n < 2 {
			continue
		}
		length, size := uint64(f.head[1]&0x7f), 2
		switch length {
		case 126:
			size = 4
		case 127:
			size = 10
		}
		if f.n < size {
			continue
		}
		switch size {
		case 4:
			length = uint64(binary.BigEndian.Uint16(f.head[2:]))
		case 10:
			length = binary.BigEndian.Uint64(f.head[2:])
		}
		if f.n = 0; f.head[1]&0x80 != 0 {
			length += 4 // the mask
		}
		f.skip = length
		if op := f.head[0] & 0xf; op != opText && op != opBinary {
			extra++
		}
	}
	return extra
}

// Opcodes and bits of RFC 6455.
const (
	opMore   = 0x0 // goes on with the message that was begun
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
	final    = 0x80
)

// beginFrame makes room for the header of a text frame; the payload is then appended, and
// endFrame given what this returned.
func beginFrame(dst []byte) ([]byte, int) {
	return append(dst, final|opText, 0, 0, 0), len(dst)
}

// endFrame writes the header of the frame that began at start, unmasked as a server's are.
func endFrame(dst []byte, start int) []byte {
	const room = 4
	payload := dst[start+room:]
	switch n := len(payload); {
	case n < 126:
		dst[start+1] = byte(n)
		copy(dst[start+2:], payload)
		return dst[:len(dst)-2]
	case n <= 0xffff:
		dst[start+1] = 126
		binary.BigEndian.PutUint16(dst[start+2:], uint16(n))
		return dst
	default:
		dst = append(dst, 0, 0, 0, 0, 0, 0)
		copy(dst[start+10:], dst[start+room:])
		dst[start+1] = 127
		binary.BigEndian.PutUint64(dst[start+2:], uint64(n))
		return dst
	}
}

// controlFrame appends a control frame of up to 125 bytes.
func controlFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, final|op, byte(len(payload)))
	return append(dst, payload...)
}

// closePayload is the payload of a close frame.
func closePayload(code int, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason[:min(len(reason), 123)]...)
}

// validClose tells whether the reason in the payload of a close frame is UTF-8.
func validClose(payload []byte) bool { return len(payload) < 2 || utf8.Valid(payload[2:]) }

// A tap is an http.ResponseWriter whose Hijack puts a wire between the socket and who asks.
type tap struct {
	http.ResponseWriter
	wire *wire
	in   *bufio.Reader // what the library reads from; set by Hijack
}

// Hijack is for websocket.Accept. Its writer is small, for it only sees control frames.
func (t *tap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t.wire.Conn = nc
	early, _ := rw.Peek(rw.Reader.Buffered())
	t.wire.count.add(early)
	t.in = rw.Reader
	return t.wire, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(t.wire, 160)), nil
}
