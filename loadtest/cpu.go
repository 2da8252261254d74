package loadtest

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// self is the name of this process in reports.
const self = "loadtest"

// A usage is the CPU time of a process so far.
type usage struct {
	process string
	time    time.Duration
	known   bool
}

// cpu is the CPU time of the target's processes and of this one.
func (r *run) cpu() []usage {
	all := make([]usage, 0, len(r.target.Processes)+1)
	for _, p := range append(r.target.Processes[:len(r.target.Processes):len(r.target.Processes)], Process{self, os.Getpid()}) {
		t, ok := cpuTime(p.PID)
		all = append(all, usage{p.Name, t, ok})
	}
	return all
}

// tick is the unit of /proc/<pid>/stat: USER_HZ, 100 on every Linux.
const tick = 10 * time.Millisecond

// cpuTime is the user and system time of a process; false where the system does not tell it
// as Linux does.
func cpuTime(pid int) (time.Duration, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// the second field is the program's name in brackets, which may hold anything; utime and
	// stime are the 14th and 15th
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * tick, err1 == nil && err2 == nil
}
