package redistest

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"dray/redisconn"
)

// CPU is the CPU time that the redis-server of client has used so far.
func CPU(t testing.TB, client *redisconn.Client) time.Duration {
	t.Helper()
	return time.Duration((info(t, client, "CPU", "used_cpu_user") + info(t, client, "CPU", "used_cpu_sys")) * float64(time.Second))
}

// Commands is how many commands it has run so far, those that scripts called among them.
func Commands(t testing.TB, client *redisconn.Client) int {
	t.Helper()
	return int(info(t, client, "Stats", "total_commands_processed"))
}

func info(t testing.TB, client *redisconn.Client, section, field string) float64 {
	t.Helper()
	text := client.Redis().InfoMap(t.Context(), section).Item(section, field)
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("redistest: INFO %s has %s %q", section, field, text)
	}
	return value
}

// OwnCPU is the CPU time that this process has used so far.
func OwnCPU(t testing.TB) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
