//go:build !linux

package redistest

import "syscall"

// endWithParent has no equal here: a test program that crashes leaves its servers behind.
func endWithParent() *syscall.SysProcAttr { return nil }
