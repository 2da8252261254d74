package redistest

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dray/redisconn"

	"github.com/redis/go-redis/v9"
)

// A Server is one redis-server process.
type Server struct {
	*process
	prefix string
}

// Single gives a server that all tests of the program share. Do not stop it, freeze it or
// flush it; see [Start] for that.
func Single(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.single == nil {
		shared.single = startServer(t, nil)
	}
	return &Server{shared.single.process, Prefix(t)}
}

// FreePort stands for a free port among the options of [Start].
const FreePort = "{port}"

// Start gives a server of its own to a test. options are added to the command line, as in
// Start(t, "--maxmemory", "10mb").
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	s := startServer(t, options)
	t.Cleanup(s.close)
	s.prefix = Prefix(t)
	return s
}

// StartTLS is [Start] with a server that speaks TLS only; options give its certificate.
func StartTLS(t testing.TB, options ...string) *Server {
	t.Helper()
	return Start(t, append([]string{"--port", "0", "--tls-port", FreePort}, options...)...)
}

// Config opens the server, with a key prefix of the test's own.
func (s *Server) Config() redisconn.Config {
	return redisconn.Config{Host: "127.0.0.1", Port: s.Port(), KeyPrefix: s.prefix}
}

// A process is a redis-server that can be stopped and started again.
type process struct {
	path string
	args []string
	dir  string
	port int
	tls  bool

	mu   sync.Mutex // guards the fields below
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

func startServer(t testing.TB, options []string) *Server {
	t.Helper()
	path := binary(t)
	for try := 1; ; try++ {
		port := freePort()
		args := []string{
			"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
			"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
		}
		args = append(args, options...)
		for i := range args {
			if args[i] == FreePort {
				args[i] = strconv.Itoa(freePort())
			}
		}
		s, err := startProcess(path, port, nil, args)
		if err == nil {
			return s
		}
		if try == 3 { // somebody else may have taken the port
			t.Fatalf("redistest: %v", err)
		}
	}
}

// startProcess starts a server in a directory of its own, with files (name -> text) in it.
func startProcess(path string, port int, files map[string]string, args []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	p := &process{path: path, port: port, dir: dir}
	if i := slices.Index(args, "--tls-port"); i >= 0 {
		p.tls = true
		p.port, _ = strconv.Atoi(args[i+1])
	}
	p.args = append(slices.Clone(args), "--dir", dir, "--logfile", filepath.Join(dir, "log"), "--daemonize", "no")
	if err := p.start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return &Server{process: p}, nil
}

// start runs the process and waits until it answers.
func (p *process) start() error {
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = endWithParent()
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The death signal comes when the thread that started the process ends, so this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if p.answers() {
			return nil
		}
		select {
		case <-done:
			log, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			return fmt.Errorf("redis-server ended at once: %s", log)
		default:
		}
		if time.Since(begin) > 10*time.Second {
			p.Stop()
			return fmt.Errorf("redis-server does not answer on port %d", p.port)
		}
	}
}

// answers tells whether the server says anything to a PING, be it NOAUTH.
func (p *process) answers() bool {
	conn, err := net.DialTimeout("tcp", p.Addr(), time.Second)
	if err != nil {
		return false
	}
	if p.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // is it up, not who is it
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	answer := make([]byte, 8)
	n, err := conn.Read(answer)
	return err == nil && !strings.HasPrefix(string(answer[:n]), "-LOADING")
}

// Port is the loopback port the server listens on.
func (p *process) Port() int { return p.port }

// Addr is 127.0.0.1 and the port.
func (p *process) Addr() string { return p.Node().String() }

// Node is the address of the server.
func (p *process) Node() redisconn.Node { return redisconn.Node{Host: "127.0.0.1", Port: p.port} }

// Stop ends the server at once, as a crash would, and waits for its end.
func (p *process) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Restart stops the server if it runs and starts it, empty, on the same port.
func (p *process) Restart(t testing.TB) {
	t.Helper()
	p.Stop()
	if err := p.start(); err != nil {
		t.Fatalf("redistest: %v", err)
	}
}

// Freeze stops the process in its tracks (SIGSTOP): connections stay and nothing answers.
func (p *process) Freeze() { p.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (p *process) Thaw() { p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Signal(s)
}

// Do runs one command on the server, outside of any client, and fails the test when it fails.
func (p *process) Do(t testing.TB, args ...any) any {
	t.Helper()
	v, err := p.try(args...)
	if err != nil {
		t.Fatalf("redistest: %v: %v", args, err)
	}
	return v
}

func (p *process) try(args ...any) (any, error) {
	rdb := redis.NewClient(&redis.Options{Addr: p.Addr(), Protocol: 2, MaxRetries: -1, DisableIdentity: true})
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return rdb.Do(ctx, args...).Result()
}

func (p *process) close() {
	p.Stop()
	_ = os.RemoveAll(p.dir)
}

// freePort finds a port below those that the system gives to outgoing connections, so that a
// server that restarts finds it free again.
func freePort() int {
	for {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
}
