package loadtest

import "syscall"

// ofParent has the system kill a child whose parent has died, and keeps Ctrl-C from it: the
// parent tells it to end.
func ofParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
