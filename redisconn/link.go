package redisconn

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A link is one connection that is used for pub/sub only. go-redis's PubSub is not used here:
// it connects and subscribes again inside a read, so that a loss goes by unseen, and does not
// tell which of two answers for a channel belongs to which command.
type link struct {
	conn    net.Conn
	r       *bufio.Reader
	timeout time.Duration // for a write

	scratch []byte // of bulk

	mu     sync.Mutex    // guards the fields below
	out    []byte        // to be written
	expect []expectation // answers to come, in order
	closed bool
	wake   chan struct{} // something is in out; closed with the link
}

var errUnsubscribed = errors.New("redis ended a subscription: the slot has moved")

// An expectation is the answer to come for one channel of a command.
type expectation struct {
	channel string
	sub     *subscription // nil for an unsubscription
}

type eventKind int

const (
	eventMessage eventKind = iota
	eventSubscribed
	eventUnsubscribed
)

type event struct {
	kind             eventKind
	channel, payload string
	sub              *subscription
}

// dialLink connects to the master that has the slot of tag, and logs in.
func (c *Client) dialLink(ctx context.Context, tag string) (*link, error) {
	node, ok := c.rdb.(*redis.Client)
	if cluster, is := c.rdb.(*redis.ClusterClient); is {
		var err error
		if node, err = cluster.MasterForKey(ctx, "{"+tag+"}"); err != nil {
			return nil, Wrap(err)
		}
	} else if !ok {
		return nil, errors.New("redisconn: not a client that a feed can use")
	}
	// For Sentinel this dialer asks for the master and goes there, whatever Addr says.
	ctx, cancel := context.WithTimeout(ctx, 2*c.config.dialTimeout())
	defer cancel()
	conn, err := node.Options().Dialer(ctx, "tcp", node.Options().Addr)
	if err != nil {
		return nil, Wrap(err)
	}
	l := &link{
		conn: conn, r: bufio.NewReaderSize(conn, 64<<10),
		timeout: c.config.writeTimeout(), wake: make(chan struct{}, 1),
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := l.login(c.config.Username, c.config.Password, c.config.readTimeout()); err != nil {
		_ = conn.Close()
		return nil, Wrap(err)
	}
	return l, nil
}

func (l *link) login(username, password string, timeout time.Duration) error {
	if password == "" {
		return nil
	}
	args := []string{"AUTH", username, password}
	if username == "" {
		args = []string{"AUTH", password}
	}
	if err := l.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := l.conn.Write(appendCommand(nil, args...)); err != nil {
		return err
	}
	_, err := l.line() // +OK, or an error
	return errors.Join(err, l.conn.SetDeadline(time.Time{}))
}

func (l *link) close() {
	_ = l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.wake)
	}
}

// send queues a command for channels. subs are what the answers confirm, nil where they end a subscription.
func (l *link) send(word string, channels []string, subs []*subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.out = appendCommand(l.out, append([]string{word}, channels...)...)
	for i, ch := range channels {
		l.expect = append(l.expect, expectation{ch, subs[i]})
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// write sends what is queued, until the link is closed or a write fails, which closes it.
func (l *link) write() {
	for range l.wake {
		l.mu.Lock()
		out := l.out
		l.out = nil
		l.mu.Unlock()
		if len(out) == 0 {
			continue
		}
		_ = l.conn.SetWriteDeadline(time.Now().Add(l.timeout))
		if _, err := l.conn.Write(out); err != nil {
			_ = l.conn.Close() // next will tell
			return
		}
	}
}

// next reads one event, until deadline.
func (l *link) next(deadline time.Time) (event, error) {
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		return event{}, err
	}
	head, err := l.line()
	if err != nil {
		return event{}, err
	}
	if string(head) != "*3" {
		return event{}, unexpected(head)
	}
	b, err := l.bulk()
	if err != nil {
		return event{}, err
	}
	var message, end bool
	switch string(b) {
	case "message", "smessage":
		message = true
	case "subscribe", "ssubscribe":
	case "unsubscribe", "sunsubscribe":
		end = true
	default:
		return event{}, unexpected(b)
	}
	if b, err = l.bulk(); err != nil {
		return event{}, err
	}
	channel := string(b)
	if message {
		b, err = l.bulk()
		return event{kind: eventMessage, channel: channel, payload: string(b)}, err
	}
	if _, err := l.line(); err != nil { // the number of subscriptions
		return event{}, err
	}
	return l.answer(channel, end)
}

// answer matches an answer with its command. Answers come in the order of commands; an end of
// a subscription that nobody asked for means that the slot has moved.
func (l *link) answer(channel string, end bool) (event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.expect) == 0 || l.expect[0].channel != channel || (l.expect[0].sub == nil) != end {
		return event{}, errUnsubscribed
	}
	sub := l.expect[0].sub
	l.expect = l.expect[1:]
	if end {
		return event{kind: eventUnsubscribed, channel: channel}, nil
	}
	return event{kind: eventSubscribed, channel: channel, sub: sub}, nil
}

// maxBulk is the longest string that Redis sends by default.
const maxBulk = 512 << 20

// bulk reads a string, which stays valid until the next call.
func (l *link) bulk() ([]byte, error) {
	head, err := l.line()
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(string(head[1:]))
	if err != nil || head[0] != '$' || n > maxBulk {
		return nil, unexpected(head)
	}
	if n < 0 {
		return nil, nil
	}
	l.scratch = slices.Grow(l.scratch[:0], n+2)[:n+2]
	_, err = io.ReadFull(l.r, l.scratch)
	return l.scratch[:n], err
}

// line reads up to CRLF; the line stays valid until the next read. An error reply becomes an error.
func (l *link) line() ([]byte, error) {
	b, err := l.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSuffix(b, []byte("\r\n"))
	if len(b) == 0 {
		return nil, unexpected(b)
	}
	if b[0] == '-' {
		return nil, replyError(b[1:])
	}
	return b, nil
}

func unexpected(b []byte) error {
	return fmt.Errorf("unexpected %.20q on a pub/sub connection", b)
}

// A replyError is an error reply on a link; [Wrap] knows it as one.
type replyError string

func (e replyError) Error() string { return string(e) }

// RedisError makes it a redis.Error.
func (replyError) RedisError() {}

func appendCommand(b []byte, args ...string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b
}
