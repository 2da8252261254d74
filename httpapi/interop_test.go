package httpapi_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Clients that share no code with the server hold the same conversation with it: handshake
// with the subprotocol, 20 positions and their ack, a subscription with its snapshot and a
// delta, a question, a ping, a clean close.

func TestInteropNode(t *testing.T) {
	node, npm := program(t, "node"), program(t, "npm")
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc", "client.js"} {
		b, err := os.ReadFile(filepath.Join("testdata/interop", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := run(dir, npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"); err != nil {
		missing(t, "npm ci could not install ws: %v\n%s", err, out)
	}
	converse(t, dir, node, "client.js")
}

func TestInteropPython(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has its package python3-websocket
	if out, err := run("", python, "-c", "import websocket"); err != nil {
		missing(t, "%s has no websocket-client (apt-get install python3-websocket): %v\n%s", python, err, out)
	}
	converse(t, "testdata/interop", python, "client.py")
}

// converse runs a client against a server of its own and compares what it printed.
func converse(t *testing.T, dir string, command ...string) {
	t.Helper()
	url := "ws" + strings.TrimPrefix(start(t, nil).url, "http") + "/v1/ws"
	out, err := run(dir, append(command, url, "van-17")...)
	const want = `welcome dray.v1.json 15000
ack 20
snapshot near 1 van-17 frei – überall
delta near true 1 24.86021
result 7 1 23
pong
closed 1000 done
`
	if err != nil || out != want {
		t.Errorf("%s said, with error %v:\n%s\nwant\n%s", command, err, out, want)
	}
}

func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "%s is not installed", name)
	}
	return path
}

// missing skips the test, but not where everything it needs should be there.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf("skipped: "+format, args...)
}

func run(dir string, command ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Dir = dir
	c.Env = append(os.Environ(), "PYTHONIOENCODING=utf-8", "PYTHONDONTWRITEBYTECODE=1")
	b, err := c.CombinedOutput()
	return string(b), err
}
