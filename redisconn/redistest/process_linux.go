package redistest

import "syscall"

// endWithParent has the system kill a server whose test program has died.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
