package redisconn

import (
	"errors"
	"fmt"
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
