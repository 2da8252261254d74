package redisconn_test

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"dray/redisconn"
)

// fakeServer answers INFO with the given text, HELLO with an error as old servers do, and anything
// else with PONG.
func fakeServer(t *testing.T, info string) redisconn.Config {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { fakeConn(conn, info) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return redisconn.Config{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
}

func fakeConn(conn net.Conn, info string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		head, err := r.ReadString('\n')
		if err != nil {
			return
		}
		n, _ := strconv.Atoi(strings.TrimSpace(head[1:]))
		var args []string
		for range n {
			_, _ = r.ReadString('\n')
			arg, _ := r.ReadString('\n')
			args = append(args, strings.ToUpper(strings.TrimSpace(arg)))
		}
		switch args[0] {
		case "INFO":
			fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(info), info)
		case "HELLO":
			fmt.Fprint(conn, "-ERR unknown command\r\n")
		default:
			fmt.Fprint(conn, "+PONG\r\n")
		}
	}
}
