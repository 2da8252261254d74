package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dray/redisconn/redistest"
)

// TestMain runs dray itself where a test asks for it, so that tests see the real process:
// its exit code, its signals, what it prints.
func TestMain(m *testing.M) {
	if os.Getenv("DRAY_TEST_MAIN") == "1" {
		main()
		return
	}
	redistest.Main(m)
}

// command is dray with arguments, in a directory of its own and without the settings of
// whoever runs the tests.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"DRAY_TEST_MAIN=1", "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}, env...)
	return cmd
}

// runDray runs to the end.
func runDray(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := command(t, env, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// A process is a dray that runs on.
type process struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	url    string // its WebSocket
	done   chan error

	mu     sync.Mutex
	stdout bytes.Buffer
}

var wsURL = regexp.MustCompile(`ws://[^/\s]+/v1/ws`)

// start runs a server and waits until it says where it listens.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: command(t, env, args...), done: make(chan error, 1)}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = in, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() { p.cmd.Process.Kill(); out.Close() })
	url := make(chan string, 1)
	go func() {
		defer close(url)
		told := false
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadString('\n')
			p.mu.Lock()
			p.stdout.WriteString(line)
			p.mu.Unlock()
			if m := wsURL.FindString(line); m != "" && !told {
				told = true
				url <- m
			}
			if err != nil {
				break
			}
		}
		p.done <- p.cmd.Wait()
	}()
	p.url = <-url
	if p.url == "" {
		t.Fatalf("dray %s ended with %v before it listened; stderr: %s", strings.Join(args, " "), <-p.done, p.stderr.String())
	}
	return p
}

// signal sends sig and returns the exit code.
func (p *process) signal(t *testing.T, sig os.Signal) int {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

func TestCommandLine(t *testing.T) {
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { occupied.Close() }) // not sooner: the subtests run side by side
	noColumns := filepath.Join(t.TempDir(), "no-columns.csv")
	writeFile(t, noColumns, "a,b\n1,2\n")
	empty := filepath.Join(t.TempDir(), "empty.csv")
	writeFile(t, empty, "")
	for _, test := range []struct {
		name   string
		env    []string
		args   []string
		code   int
		stdout string // a part of it
		stderr string // a part of its one line; empty means that there is none
	}{
		{"no command shows the help", nil, nil, 0, "dray demo", ""},
		{"--help", nil, []string{"--help"}, 0, "Commands:", ""},
		{"--version", nil, []string{"--version"}, 0, "dray ", ""},
		{"serve --help names the variables", nil, []string{"serve", "--help"}, 0, "$LOCATION_TTL", ""},
		{"watch --help has examples", nil, []string{"watch", "--help"}, 0, "--filter status=free", ""},
		{"replay --help tells the format", nil, []string{"replay", "--help"}, 0, "vehicle_id", ""},
		{"an unknown command", nil, []string{"fly"}, 2, "", "unexpected argument fly"},
		{"an unknown flag", nil, []string{"serve", "--port", "1"}, 2, "", "unknown flag --port"},
		{"a TTL that is no time", nil, []string{"serve", "--location-ttl", "soon"}, 2, "", "--location-ttl"},
		{"a variable that is no time names the variable", []string{"LOCATION_TTL=soon"}, []string{"serve"}, 2, "", "LOCATION_TTL"},
		{"an empty variable is not set", []string{"LOCATION_TTL=", "DRAY_LISTEN=", "REDIS_URL="}, []string{"serve", "--listen", occupied.Addr().String()}, 1, "", "another program listens"},
		{"a TTL of nothing", []string{"LOCATION_TTL=0"}, []string{"serve"}, 2, "", "LOCATION_TTL"},
		{"a log level that is none", []string{"DRAY_LOG_LEVEL=loud"}, []string{"serve"}, 2, "", "DRAY_LOG_LEVEL"},
		{"an address that others can reach", nil, []string{"serve", "--listen", "0.0.0.0:0"}, 2, "", "no authentication"},
		{"a port that is none", nil, []string{"serve", "--listen", "127.0.0.1:99999"}, 2, "", "invalid port"},
		{"a port in use", nil, []string{"serve", "--listen", occupied.Addr().String()}, 1, "", "--listen or DRAY_LISTEN"},
		{"a port in use, from the environment", []string{"DRAY_LISTEN=" + occupied.Addr().String()}, []string{"demo"}, 1, "", "another program listens"},
		{"no Redis at REDIS_URL", []string{"REDIS_URL=redis://127.0.0.1:1"}, []string{"serve", "--listen", "127.0.0.1:0"}, 1, "", "127.0.0.1:1"},
		{"a REDIS_URL that is none", []string{"REDIS_URL=here"}, []string{"serve"}, 2, "", "REDIS_URL must have the form"},
		{"two Redis", []string{"REDIS_URL=redis://a", "REDIS_HOST=b"}, []string{"serve"}, 2, "", "contradict"},
		{"nobody at the URL", nil, []string{"watch", "--url", "ws://127.0.0.1:1/v1/ws"}, 1, "", "--url or DRAY_URL"},
		{"two shapes", nil, []string{"watch", "--nearby", "1,2,3", "--drivers", "a"}, 2, "", "can't be used together"},
		{"a circle of two numbers", nil, []string{"watch", "--nearby", "1,2"}, 2, "", "3 numbers"},
		{"a filter without a value", nil, []string{"watch", "--filter", "status"}, 2, "", "KEY=VALUE"},
		{"a file that is not there", nil, []string{"replay", "nowhere.csv"}, 2, "", "nowhere.csv"},
		{"a file without the columns", nil, []string{"replay", noColumns}, 1, "", "no column for the driver"},
		{"a speed below 0", nil, []string{"replay", noColumns, "--speed=-1"}, 2, "", "--speed"},
		{"a speed below 0 as the next word", nil, []string{"replay", noColumns, "--speed", "-1"}, 2, "", `--speed: "-1" is neither a number`},
		{"a trail of less than nothing", nil, []string{"serve", "--trail-length", "-5"}, 2, "", "--trail-length (DRAY_TRAIL_LENGTH) must be 0 or more"},
		{"a trail of less than nothing in a demo", nil, []string{"demo", "--trail-length", "-5"}, 2, "", "--trail-length (DRAY_TRAIL_LENGTH) must be 0 or more"},
		{"a place in the south", nil, []string{"watch", "--nearby", "-33.9,151.2,500", "--url", "127.0.0.1:1"}, 1, "", "connection refused"},
		{"help", nil, []string{"help"}, 0, "Commands:", ""},
		{"help for a command", nil, []string{"help", "watch"}, 0, "--filter status=free", ""},
		{"version", nil, []string{"version"}, 0, "dray ", ""},
		{"the help named is the command's", nil, []string{"serve", "--port", "1"}, 2, "", "(dray serve --help tells more)"},
		{"the help named is the subcommand's", nil, []string{"loadtest", "ingest", "--port", "1"}, 2, "", "(dray loadtest ingest --help tells more)"},
		{"a drain in seconds", []string{"DRAY_DRAIN=5"}, []string{"serve", "--listen", occupied.Addr().String()}, 1, "", "another program listens"},
		{"a drain that is no time", []string{"DRAY_DRAIN=soon"}, []string{"serve"}, 2, "", `"soon" is neither seconds nor a duration like 250ms, 90s or 2m (from DRAY_DRAIN)`},
		{"an interval too long", nil, []string{"watch", "--interval", "100"}, 2, "", "--interval is 1m40s: it must be 0 to 1m0s, and a number without a unit is seconds"},
		{"an interval below 0", nil, []string{"watch", "--interval", "-1s"}, 2, "", `--interval: "-1s" is neither`},
		{"an empty URL", nil, []string{"watch", "--url", ""}, 2, "", "--url: it is empty"},
		{"a URL of another kind", nil, []string{"replay", "--url", "redis://127.0.0.1", noColumns}, 2, "", "--url: it begins with redis://"},
		{"a URL from the environment", []string{"DRAY_URL=http://127.0.0.1:1"}, []string{"watch"}, 1, "", "connect to ws://127.0.0.1:1/v1/ws: "},
		{"an origin that can't be read", nil, []string{"serve", "--allowed-origins", "[bad"}, 2, "", "--allowed-origins (DRAY_ALLOWED_ORIGINS)"},
		{"an origin that can't match", []string{"DRAY_ALLOWED_ORIGINS=a.example.com,https://b.example.com/"}, []string{"serve"}, 2, "", `"https://b.example.com/" is neither`},
		{"an inventory that is neither on nor off", []string{"DRAY_INVENTORY=maybe"}, []string{"serve"}, 2, "", "--inventory must be one of"},
		{"replicas below 0", []string{"DRAY_INVENTORY_REPLICAS=-1"}, []string{"serve"}, 2, "", "--inventory-replicas (DRAY_INVENTORY_REPLICAS) must be 0 to 16"},
		{"a wait of nothing", []string{"DRAY_INVENTORY_WAIT=0"}, []string{"serve"}, 2, "", "DRAY_INVENTORY_WAIT"},
		{"a ledger of nothing", []string{"DRAY_LEDGER_LENGTH=0"}, []string{"serve"}, 2, "", "DRAY_LEDGER_LENGTH"},
		{"a ledger age that is none", []string{"DRAY_LEDGER_AGE=old"}, []string{"serve"}, 2, "", "(from DRAY_LEDGER_AGE)"},
		{"stock of no server", nil, []string{"stock", "get", "apple", "--url", "127.0.0.1:1"}, 1, "", "--url or DRAY_URL"},
		{"stock without a command", nil, []string{"stock"}, 2, "", "stock"},
		{"stock set --help has examples", nil, []string{"stock", "set", "--help"}, 0, "--if-version 179", ""},
		{"reserve --help has examples", nil, []string{"reserve", "--help"}, 0, "apple=2 pear=1", ""},
		{"a cart at a place and near one", nil, []string{"reserve", "apple=1", "--near", "1,2,3", "--location", "a"}, 2, "", "can't be used together"},
		{"a cart near two numbers", nil, []string{"reserve", "apple=1", "--near", "-1,2"}, 2, "", "3 numbers"},
		{"a location in the south", nil, []string{"stock", "place", "a", "-33.9,151.2", "--url", "127.0.0.1:1"}, 1, "", "connection refused"},
		{"a location nowhere", nil, []string{"stock", "place", "a"}, 2, "", "LAT,LON or --forget is needed"},
		{"a cart of nothing", nil, []string{"reserve"}, 2, "", "<items>"},
		{"a line that is none", nil, []string{"reserve", "apple"}, 2, "", `"apple" is no SKU=QUANTITY`},
		{"a line of 0", nil, []string{"commit", "default.A", "apple=0"}, 2, "", `"apple=0" is no SKU=QUANTITY`},
		{"an end that is not named", nil, []string{"extend", "default.A"}, 2, "", "--ttl"},
		{"half a second", nil, []string{"extend", "default.A", "--ttl", "500ms"}, 2, "", "whole seconds"},
		{"the ledger of nothing", nil, []string{"stock", "ledger"}, 2, "", "a SKU or --reservation is needed"},
		{"a quantity that is none", nil, []string{"stock", "set", "apple", "many"}, 2, "", "many"},
		{"two conditions", nil, []string{"stock", "set", "apple", "1", "--new", "--if-version", "3"}, 2, "", "can't be used together"},
		{"no buckets", []string{"DRAY_MAX_BUCKETS=0"}, []string{"serve"}, 2, "", "DRAY_MAX_BUCKETS"},
		{"a claim for half a second", nil, []string{"claim", "--ttl", "500ms"}, 2, "", "--ttl is 500ms: it must be whole seconds"},
		{"a claim for two hours", nil, []string{"claim", "--ttl", "2h"}, 2, "", "ttlSeconds: must be an integer from 1 to 3600"},
		{"a claim of nobody", nil, []string{"claim", "--count", "0"}, 2, "", "--count is 0: it must be 1 to 100"},
		{"a claim around the pole", nil, []string{"claim", "--nearby", "91,2,3"}, 2, "", "latitude"},
		{"a claim from nobody", nil, []string{"claim", "--url", "127.0.0.1:1"}, 1, "", "--url or DRAY_URL"},
		{"an unclaim of nothing", nil, []string{"unclaim"}, 2, "", "<claim>"},
		{"a file that is a directory", nil, []string{"replay", "."}, 2, "", "it is a directory"},
		{"an empty file", nil, []string{"replay", empty}, 1, "", "empty.csv: the file is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runDray(t, test.env, test.args...)
			if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
				t.Errorf("dray %s = %d, %q, %q, want %d, ...%q..., ...%q...", strings.Join(test.args, " "), code, stdout, stderr, test.code, test.stdout, test.stderr)
			}
			if n := strings.Count(stderr, "\n"); test.stderr == "" && n > 0 || n > 1 {
				t.Errorf("stderr has %d lines, want one at most: %s", n, stderr)
			}
		})
	}
}

func TestSettingsComeFromDotEnvToo(t *testing.T) {
	cmd := command(t, nil, "serve")
	writeFile(t, filepath.Join(cmd.Dir, ".env"), "DRAY_LISTEN=0.0.0.0:0\n")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `"0.0.0.0:0"`) {
		t.Errorf("serve with DRAY_LISTEN in .env = %v, %s, want its address refused", err, out)
	}
}

func TestUnknownSettingsAreNamed(t *testing.T) {
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close()
	cmd := command(t, []string{"REDIS_HOTS=s3cret", "REDIS_SERVER_BIN=s3cret", "REDIS_SERVICE_HOST=s3cret", "REDIS_PORT_6379_TCP=s3cret", "DRAY_NOTHING=s3cret", "LOCATION=s3cret", "DRAY_DRAIN=5"},
		"serve", "--listen", occupied.Addr().String())
	writeFile(t, filepath.Join(cmd.Dir, ".env"), "DRAY_LISTN=s3cret\nREDIS_USER=s3cret\nLOCATION_TTL=60\nHOME=/\n")
	out, _ := cmd.CombinedOutput()
	for _, want := range []string{
		`msg="unknown setting DRAY_NOTHING"`,
		`msg="unknown setting REDIS_HOTS; did you mean REDIS_HOST?"`,
		`msg="unknown setting DRAY_LISTN; did you mean DRAY_LISTEN?" file=.env`,
		`msg="unknown setting REDIS_USER; did you mean REDIS_USERNAME?" file=.env`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("serve said %s, want %s in it", out, want)
		}
	}
	if n := strings.Count(string(out), "unknown setting"); n != 4 || strings.Contains(string(out), "s3cret") {
		t.Errorf("serve said %s, want 4 warnings and no value", out)
	}
}

func TestARefusedLoginIsTold(t *testing.T) {
	addr := redistest.Start(t, "--requirepass", "s3cret").Addr()
	for url, want := range map[string]string{
		"redis://" + addr:               "Redis wants a password: set REDIS_PASSWORD",
		"redis://:wr0ng@" + addr:        "Redis refuses the user name or the password: look at REDIS_USERNAME and REDIS_PASSWORD",
		"rediss://any:wr0ng@" + addr:    "did not answer in TLS",
		"redis://:wr0ng@127.0.0.1:1/13": "Redis is out of reach",
	} {
		code, _, stderr := runDray(t, []string{"REDIS_URL=" + url}, "serve", "--listen", "127.0.0.1:0")
		if code != 1 || !strings.Contains(stderr, want) || strings.Contains(stderr, "wr0ng") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("serve on %s = %d, %s, want 1, one line with %q and no password", url, code, stderr, want)
		}
	}
}

func TestASocketURLIsCompleted(t *testing.T) {
	for text, want := range map[string]string{
		"ws://127.0.0.1:18080":               "ws://127.0.0.1:18080/v1/ws",
		"ws://127.0.0.1:18080/":              "ws://127.0.0.1:18080/v1/ws",
		"http://127.0.0.1:18080":             "ws://127.0.0.1:18080/v1/ws",
		"https://dray.example.com":           "wss://dray.example.com/v1/ws",
		"wss://dray.example.com/live/v1/ws":  "wss://dray.example.com/live/v1/ws",
		"127.0.0.1:18080":                    "ws://127.0.0.1:18080/v1/ws",
		"[::1]:18080":                        "ws://[::1]:18080/v1/ws",
		"localhost:18080/v1/ws":              "ws://localhost:18080/v1/ws",
		"https://dray.example.com?access=ab": "wss://dray.example.com/v1/ws?access=ab",
		"":                                   "",
		":18080":                             "",
		"ws://":                              "",
		"ws://host:port":                     "",
		"ftp://host":                         "",
	} {
		var got socketURL
		if err := got.UnmarshalText([]byte(text)); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("UnmarshalText(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestServeStopsCleanly(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			p := start(t, nil, "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
			if code := p.signal(t, sig); code != 0 || p.stderr.Len() > 0 {
				t.Errorf("serve ended with %d and said %q, want 0 and nothing", code, p.stderr.String())
			}
			for _, want := range []string{"Data lives in this process only", "watch --url " + p.url} {
				if !strings.Contains(p.stdout.String(), want) {
					t.Errorf("serve said %q, want %q in it", p.stdout.String(), want)
				}
			}
		})
	}
}

func TestASecondSignalQuitsAtOnce(t *testing.T) {
	p := start(t, nil, "serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--drain", "50s")
	address := strings.TrimSuffix(strings.TrimPrefix(p.url, "ws://"), "/v1/ws")
	var halves []net.Conn // requests that draining waits for
	for range 2 {
		half, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer half.Close()
		if _, err := io.WriteString(half, "POST /v1/positions HTTP/1.1\r\nHost: "+address+"\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answered(t, half, "HTTP/1.1 100 ") // it waits for the body
		halves = append(halves, half)
	}
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // until it listens no more
		c, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := io.WriteString(halves[0], "{}"); err != nil {
		t.Fatal(err)
	}
	answered(t, halves[0], "HTTP/1.1 400 ")
	p.signal(t, os.Interrupt)
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGINT || time.Since(began) > 5*time.Second {
		t.Errorf("serve ended with %v after %v, want by the second signal and at once", p.cmd.ProcessState, time.Since(began))
	}
}

// answered reads the beginning of an answer.
func answered(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, 1024)
	if n, err := c.Read(got); err != nil || !strings.HasPrefix(string(got[:n]), want) {
		t.Fatalf("answered %q, %v, want %q", got[:n], err, want)
	}
}

func TestTheDemoMoves(t *testing.T) {
	p := start(t, nil, "demo", "--listen", "127.0.0.1:0", "--drivers", "20", "--log-level", "error")
	watch := command(t, nil, "watch", "--url", p.url, "--json", "--for", "30s", "--interval", "200ms")
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	watch.Stderr = os.Stderr
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	set, moved := newFollower(), 0
	for lines := bufio.NewReader(out); len(set.drivers) < 20 || moved < 40; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("watch ended with %d drivers and %d moves: %v", len(set.drivers), moved, err)
		}
		moved += set.apply(t, line)
	}
	if err := watch.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, out)
	if watch.Wait(); watch.ProcessState.ExitCode() != 0 {
		t.Errorf("watch ended with %d after Ctrl-C, want 0", watch.ProcessState.ExitCode())
	}
	code, table, _ := runDray(t, nil, "watch", "--url", p.url, "--once", "--filter", "status=free", "--filter", "status=busy")
	if code != 0 || !strings.Contains(table, "20 drivers") || !strings.Contains(table, "demo-0020") {
		t.Errorf("watch --once = %d, %s, want 20 drivers", code, table)
	}
	if code := p.signal(t, os.Interrupt); code != 0 || p.stderr.Len() > 0 {
		t.Errorf("demo ended with %d and said %q, want 0 and nothing", code, p.stderr.String())
	}
}
