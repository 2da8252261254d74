package loadtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Child is a process that this one has started. It ends with Stop, and on Linux also when
// this process dies.
type Child struct {
	cmd  *exec.Cmd
	dir  string // its own, empty at first
	done chan struct{}
	err  error // of its end; to be read when done is closed
}

const (
	startWait = 10 * time.Second // for a child to say that it is ready
	stopWait  = 15 * time.Second // for a child to end when told to, before it is killed
)

// startChild runs path in a directory of its own, with none of this process's settings of
// dray and Redis.
func startChild(path string, stdout, stderr io.Writer, args ...string) (*Child, error) {
	dir, err := os.MkdirTemp("", "dray-loadtest-")
	if err != nil {
		return nil, err
	}
	c := &Child{cmd: exec.Command(path, args...), dir: dir, done: make(chan struct{})}
	c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = dir, stdout, stderr
	c.cmd.SysProcAttr = ofParent()
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DRAY_") && !strings.HasPrefix(v, "REDIS_") && !strings.HasPrefix(v, "LOCATION_") || strings.HasPrefix(v, "DRAY_TEST_") {
			c.cmd.Env = append(c.cmd.Env, v)
		}
	}
	started := make(chan error)
	go func() {
		// The system kills the child when the thread that started it ends, so this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.done)
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return c, nil
}

// PID is its process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Stop tells the process to end, waits for it, and kills it when it does not.
func (c *Child) Stop() error {
	defer os.RemoveAll(c.dir)
	select {
	case <-c.done:
		return fmt.Errorf("%s ended before it was told to: %w", c.cmd.Path, cause(c.err))
	default:
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(stopWait):
		_ = c.cmd.Process.Kill()
		<-c.done
		return fmt.Errorf("%s did not end within %v, and was killed", c.cmd.Path, stopWait)
	}
	return nil
}

func cause(err error) error {
	if err == nil {
		return errors.New("with exit code 0")
	}
	return err
}

// A RedisChild is a private redis-server that keeps nothing.
type RedisChild struct {
	*Child
	Address string // host:port, loopback
}

// StartRedis starts the redis-server in PATH on a free port of loopback. It fails with
// exec.ErrNotFound where there is none.
func StartRedis(ctx context.Context) (*RedisChild, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		address, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(address)
		child, err := startChild(path, io.Discard, os.Stderr, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no")
		if err != nil {
			return nil, err
		}
		r := &RedisChild{child, address}
		if err = r.ready(ctx); err == nil {
			return r, nil
		}
		_ = r.Stop()
		if try == 3 || ctx.Err() != nil { // somebody else may have taken the port
			return nil, err
		}
	}
}

// ready waits until Redis answers, and makes sure that it is ours that does.
func (r *RedisChild) ready(ctx context.Context) error {
	rdb := openRedis(r.Address)
	defer rdb.Close()
	for end := time.Now().Add(startWait); ; {
		info, err := rdb.Info(ctx, "server").Result()
		if err == nil {
			if !strings.Contains(info, "process_id:"+strconv.Itoa(r.PID())+"\r\n") {
				return fmt.Errorf("another Redis listens on %s", r.Address)
			}
			return nil
		}
		select {
		case <-r.done:
			return fmt.Errorf("redis-server ended: %w", cause(r.err))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("redis-server does not answer on %s: %w", r.Address, err)
		}
	}
}

func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// A ServerChild is a server in a process of its own.
type ServerChild struct {
	*Child
	URL string // of its WebSocket
}

var socketURL = regexp.MustCompile(`wss?://[^/\s)]+/v1/ws`)

// StartServer runs a program that prints the URL of its WebSocket once it listens, and
// waits for that.
func StartServer(ctx context.Context, path string, args ...string) (*ServerChild, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	child, err := startChild(path, in, os.Stderr, args...)
	in.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	said := make(chan string, 1)
	go func() {
		defer close(said)
		defer out.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if u := socketURL.FindString(lines.Text()); u != "" && len(said) == 0 {
				said <- u
			}
		}
	}()
	s := &ServerChild{Child: child}
	select {
	case s.URL = <-said:
	case <-time.After(startWait):
	case <-ctx.Done():
	}
	if s.URL == "" {
		return nil, errors.Join(context.Cause(ctx), fmt.Errorf("%s %s does not listen", path, strings.Join(args, " ")), s.Stop())
	}
	return s, nil
}
