//go:build !linux

package loadtest

import "syscall"

// ofParent has no equal here: a parent that crashes leaves its children behind.
func ofParent() *syscall.SysProcAttr { return nil }
