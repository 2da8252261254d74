//go:build unix

package httpapi

import "syscall"

// openFiles is how many files this process may have open; the runtime has raised it as far
// as it may be.
func openFiles() (n uint64, ok bool) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0, false
	}
	return uint64(limit.Cur), true //nolint:unconvert // it is an int64 on FreeBSD
}
