package main

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The commands that a newcomer meets first, as the README writes them: a fleet, the line
// that watches it, and the tests (which CI runs by the README's own words).
func TestReadmeCommands(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string // indented lines before the first heading of a section
	intro, _, _ := strings.Cut(string(readme), "\n## ")
	for line := range strings.Lines(intro) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	second := regexp.MustCompile("second terminal: `([^`]+)`").FindStringSubmatch(intro)
	if len(commands) != 2 || second == nil {
		t.Fatalf("the README begins with %q and a second terminal's %q, want two commands and one", commands, second)
	}
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil || !strings.Contains(string(ci), commands[1]+"\n") {
		t.Errorf(".ci/run does not run %q, %v", commands[1], err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	run := func(line string) (*bufio.Reader, func()) {
		words := strings.Fields(line)
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "DRAY_LISTEN="+address, "DRAY_URL=ws://"+address+"/v1/ws")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run has a child
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(out), func() {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
			_ = cmd.Wait()
		}
	}
	wait := func(out *bufio.Reader, what string, found func(line string) bool) {
		t.Helper()
		for {
			line, err := out.ReadString('\n')
			if found(line) {
				return
			}
			if err != nil {
				t.Fatalf("ended before %s: %v", what, err)
			}
		}
	}
	fleet, stop := run(commands[0])
	defer stop()
	wait(fleet, "it said how to watch", func(line string) bool { return strings.Contains(line, "dray watch") })
	table, stop := run(second[1])
	defer stop()
	moving := regexp.MustCompile(`^demo-\d+ .* [1-9]\d*\.\d m/s`)
	wait(table, "a driver was seen", moving.MatchString)
}
