package redisconn

import (
	"bufio"
	"io"
	"net"
	"time"
)

// CheckInfo is checkInfo, for servers that the tests cannot start.
func CheckInfo(text string, mode Mode) error { return checkInfo(text, mode) }

// ReadFeed reads what a server sends on a pub/sub connection that expects answers for the
// channels a and b, until the first error.
func ReadFeed(server io.Reader) (events int, err error) {
	here, there := net.Pipe() // for the deadlines only
	defer here.Close()
	defer there.Close()
	l := &link{conn: here, r: bufio.NewReaderSize(server, 64<<10)}
	l.expect = []expectation{{"a", &subscription{}}, {"b", &subscription{}}, {"a", nil}}
	for {
		if _, err := l.next(time.Time{}); err != nil {
			return events, err
		}
		events++
	}
}
