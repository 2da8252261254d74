package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"dray/loadtest"
)

func TestLoadtest(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil && os.Getenv("CI") == "" {
		t.Skip("SKIP-NO-REDIS: no redis-server in PATH")
	}
	short := []string{"--duration", "300ms", "--warmup", "0s", "--json"}
	fleet := slices.Clip([]string{"--drivers", "100", "--spread", "10km"})
	for name, args := range map[string][]string{
		"ingest":     append(fleet, "--connections", "10"),
		"watch":      append(fleet, "--subscribers", "10", "--updates", "500", "--publishers", "2", "--profile", t.TempDir()),
		"nearby":     append(fleet, "--connections", "2", "--http"),
		"reserve":    {"--connections", "4", "--skus", "2", "--keys"},
		"flash-sale": {"--connections", "4", "--units", "50"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runDray(t, nil, append(append([]string{"loadtest", name}, short...), args...)...)
			var r loadtest.Report
			if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil {
				t.Fatalf("dray loadtest %s = %d, %v, %s, %s", name, code, err, stdout, stderr)
			}
			var targets []string
			for _, x := range r.Results {
				targets = append(targets, x.Target)
				if x.Operations == 0 {
					t.Errorf("%s on %s counted no %s", name, x.Target, x.Operation)
				}
			}
			if got := strings.Join(targets, " "); !strings.HasPrefix(got, "dray naive") && name != "flash-sale" {
				t.Errorf("%s measured %q, want dray and the baselines", name, got)
			}
		})
	}
}

func TestLoadtestOfARunningServer(t *testing.T) {
	p := start(t, nil, "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
	code, stdout, stderr := runDray(t, nil, "loadtest", "ingest", "--url", p.url, "--connections", "10", "--duration", "300ms", "--warmup", "0s")
	for _, want := range []string{"not known", "ok     the newest acknowledged position is stored (10 checked, 0 failed)"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("loadtest = %d, %s, %s, want 0 and %q", code, stdout, stderr, want)
		}
	}
}

func TestLoadtestEndsItsChildren(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil && os.Getenv("CI") == "" {
		t.Skip("SKIP-NO-REDIS: no redis-server in PATH")
	}
	cmd := command(t, nil, "loadtest", "ingest", "--connections", "10", "--warmup", "0s", "--duration", "1m")
	cmd.Env = append(cmd.Env, "TMPDIR="+cmd.Dir)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(stderr)
	for line := ""; !strings.Contains(line, "measuring"); { // until it is at work
		if line, err = said.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if children, err := os.ReadDir(cmd.Dir); err != nil || len(children) != 2 {
		t.Errorf("loadtest works with %v, %v, want a place of the server's and one of Redis's", children, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, said)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("loadtest ended with %d after Ctrl-C, want %d", code, exitInterrupted)
	}
	left, err := os.ReadDir(cmd.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("loadtest left %v behind, %v", left, err)
	}
}
