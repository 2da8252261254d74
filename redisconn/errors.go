package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"

	"dray"

	"github.com/redis/go-redis/v9"
)

// unavailableReplies are the first words of replies by which Redis says that it can't serve
// now, or not as it is set up. All other replies are faults of a command or script: internal.
var unavailableReplies = []string{
	"LOADING", "READONLY", "OOM", "BUSY", "MISCONF", // the server can't, for now
	"CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "MOVED", "ASK", // the topology is changing
	"NOAUTH", "WRONGPASS", "NOPERM", "max number of clients", // the operator has to act
	"NOSCRIPT",  // a script cache that stays empty
	"WRONGTYPE", // somebody else's value under one of our keys
}

// Wrap makes the failures of Redis errors of [dray.ErrUnavailable]: no connection, no answer
// in time, and the replies of one table (LOADING, READONLY, OOM …). The cause stays in the
// chain. Nil, [redis.Nil] and other replies, such as a script's own error, come back as they are.
//
// Everything from a [Client], also from [Client.Redis], is wrapped already.
func Wrap(err error) error {
	if err == nil || errors.Is(err, redis.Nil) || errors.Is(err, dray.ErrUnavailable) || !unavailable(err) {
		return err
	}
	return fmt.Errorf("%w: %w", dray.ErrUnavailable, err)
}

func unavailable(err error) bool {
	reply, ok := errors.AsType[redis.Error](err)
	if !ok {
		return !ours(err)
	}
	text := strings.TrimPrefix(reply.Error(), "ERR ")
	for _, word := range unavailableReplies {
		if strings.HasPrefix(text, word) {
			return true
		}
	}
	return false
}

// An openError says in words of its own, with the settings to look at, what err is.
type openError struct {
	text string
	err  error
}

func (e *openError) Error() string { return e.text }
func (e *openError) Unwrap() error { return e.err }

// explain is for those who start a server: it tells a refused login from a Redis that is not
// there. No reply of Redis holds the password.
func explain(err error) error {
	reply, ok := errors.AsType[redis.Error](err)
	if !ok {
		if e, ok := errors.AsType[*tlsError](err); ok {
			return &openError{e.Error(), err} // it was reached, more or less
		}
		return err
	}
	for _, x := range []struct{ word, text string }{
		{"NOAUTH", "Redis wants a password: set REDIS_PASSWORD, with REDIS_USERNAME where it is not the default user's, or both in REDIS_URL"},
		{"WRONGPASS", "Redis refuses the user name or the password: look at REDIS_USERNAME and REDIS_PASSWORD, or at both in REDIS_URL"},
		{"NOPERM", "Redis does not let this user do what dray needs: look at its ACL, or at REDIS_USERNAME (or the user in REDIS_URL)"},
		{"ERR AUTH", "Redis has no password, but one is set: look at REDIS_PASSWORD and REDIS_USERNAME, or at both in REDIS_URL"},
	} {
		if strings.HasPrefix(reply.Error(), x.word) {
			return &openError{fmt.Sprintf("%s (it says: %s)", x.text, reply), err}
		}
	}
	return err
}

// A tlsError is a handshake that failed.
type tlsError struct {
	address string
	err     error
}

func (e *tlsError) Error() string {
	_, plain := errors.AsType[tls.RecordHeaderError](e.err)
	if plain || errors.Is(e.err, context.DeadlineExceeded) || errors.Is(e.err, os.ErrDeadlineExceeded) {
		return fmt.Sprintf("%s did not answer in TLS, which REDIS_TLS or rediss:// in REDIS_URL asks for: is this a plain port?", e.address)
	}
	return fmt.Sprintf("TLS with %s, which REDIS_TLS or rediss:// in REDIS_URL asks for: %v", e.address, e.err)
}

func (e *tlsError) Unwrap() error { return e.err }

// ours tells a misuse of go-redis, which says so in text only, from a failure of the network.
func ours(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "redis: can't marshal") || strings.HasPrefix(text, "redis: cannot pipeline")
}

// notRun tells whether err is a reply with the given first word that Redis gave instead of
// running the script. An error from inside a script has the same word in front, but names the script.
func notRun(err error, word string) bool {
	reply, ok := errors.AsType[redis.Error](err)
	return ok && strings.HasPrefix(reply.Error(), word+" ") && !strings.Contains(reply.Error(), "script: ")
}
