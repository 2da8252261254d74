package redisconn

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Script is a Lua script, known to Redis by its SHA-1.
type Script struct {
	name string
	src  string
	sha  string
}

// NewScript names the script src; name appears in errors.
func NewScript(name, src string) *Script {
	sum := sha1.Sum([]byte(src))
	return &Script{name: name, src: src, sha: hex.EncodeToString(sum[:])}
}

// A Call is a script with its keys and arguments, or a plain command, to be sent once, with others, by [Client.RunAll].
type Call struct {
	script *Script
	args   []any // as sent; EVALSHA and EVAL differ in the first two
	key    int8  // place of the first key in args, 0 when there is none
}

// Call prepares a call of s. In a Cluster all keys share a slot.
func (s *Script) Call(keys []string, args ...any) Call {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", s.sha, len(keys))
	for _, k := range keys {
		all = append(all, k)
	}
	call := Call{script: s, args: append(all, args...)}
	if len(keys) > 0 {
		call.key = 3
	}
	return call
}

// Command prepares a plain command whose first key, if it has any, follows its name: Command("HGETALL", key).
func Command(name string, args ...any) Call {
	call := Call{args: append([]any{name}, args...)}
	if len(args) > 0 {
		call.key = 1
	}
	return call
}

// A once is a command that go-redis must not send again when no reply came, for it may have run.
// MaxRetries: -1 would do outside Cluster only. Redirects are still followed: they say that it did not run.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

func (c Call) once(ctx context.Context) once {
	cmd := redis.NewCmd(ctx, c.args...)
	cmd.SetFirstKeyPos(c.key)
	cmd.SetStepCount(1) // or go-redis would ask a Cluster for COMMAND, to find this out
	return once{cmd}
}

// eval is the call with the script's text in place of its SHA-1.
func (c Call) eval() Call {
	c.args[0], c.args[1] = "eval", c.script.src
	return c
}

func (c Call) finish(cmd *redis.Cmd) *redis.Cmd {
	if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) && c.script != nil {
		cmd.SetErr(fmt.Errorf("script %s: %w", c.script.name, err))
	}
	return cmd
}

// Pauses before a call is sent again that a Cluster refused because it is moving one of its
// keys (TRYAGAIN). They add up to 0.6 s; ctx may end them sooner.
var tryAgainPauses = [...]time.Duration{5, 10, 20, 40, 75, 150, 300} // milliseconds

func (c *Client) pause(ctx context.Context, attempt int) bool {
	if attempt >= len(tryAgainPauses) {
		return false
	}
	t := time.NewTimer(tryAgainPauses[attempt] * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Run runs s once or not at all. When it fails with [dray.ErrUnavailable] it may have run: the
// reply was lost. Only a refusal that proves it did not run is followed by another try: NOSCRIPT
// (Redis lost its scripts), MOVED and ASK (the slot is elsewhere), TRYAGAIN (a key is on its way).
//
// One round trip. args are not copied one by one; keep them unchanged until Run returns.
func (c *Client) Run(ctx context.Context, s *Script, keys []string, args ...any) *redis.Cmd {
	call := s.Call(keys, args...)
	for attempt := 0; ; attempt++ {
		cmd := call.once(ctx)
		err := c.rdb.Process(ctx, cmd)
		if notRun(err, "NOSCRIPT") && call.args[0] == "evalsha" {
			call = call.eval()
		} else if !notRun(err, "TRYAGAIN") || !c.pause(ctx, attempt) {
			return call.finish(cmd.Cmd)
		}
	}
}

// RunAll sends all calls in one pipeline for each server and returns their results in order.
// Each is run once or not at all, as by [Client.Run], and fails by itself.
func (c *Client) RunAll(ctx context.Context, calls []Call) []*redis.Cmd {
	results := make([]*redis.Cmd, len(calls))
	todo := make([]int, len(calls)) // places in calls that are still to be run
	for i := range todo {
		todo[i] = i
	}
	for attempt := 0; len(todo) > 0; attempt++ {
		pipe := c.rdb.Pipeline()
		for _, i := range todo {
			cmd := calls[i].once(ctx)
			results[i] = cmd.Cmd
			_ = pipe.Process(ctx, cmd) // queues only
		}
		_, _ = pipe.Exec(ctx) // each command has its own error

		var again []int
		moving := false
		for _, i := range todo {
			switch err := results[i].Err(); {
			case err == nil:
			case notRun(err, "NOSCRIPT") && calls[i].script != nil && calls[i].args[0] == "evalsha":
				calls[i] = calls[i].eval()
				again = append(again, i)
			case notRun(err, "TRYAGAIN"):
				again = append(again, i)
				moving = true
			}
		}
		if moving && !c.pause(ctx, attempt) {
			break
		}
		todo = again
	}
	for i, call := range calls {
		call.finish(results[i])
	}
	return results
}

// RunWait is [Client.Run], after which it waits on the same connection until so many replicas
// have what the script wrote, for at most wait (1 ms to half of the read timeout). acked is how
// many have; 0 where that is not known.
func (c *Client) RunWait(ctx context.Context, s *Script, replicas int, wait time.Duration, keys []string, args ...any) (cmd *redis.Cmd, acked int) {
	call := s.Call(keys, args...)
	wait = max(min(wait, c.config.readTimeout()/2), time.Millisecond)
	for attempt := 0; ; attempt++ {
		node, err := c.master(ctx, keys[0])
		if err != nil {
			cmd = redis.NewCmd(ctx, call.args...)
			cmd.SetErr(err)
			return call.finish(cmd), 0
		}
		run := call.once(ctx)
		confirm := Call{args: []any{"wait", replicas, wait.Milliseconds()}}.once(ctx)
		pipe := node.Pipeline()
		_ = pipe.Process(ctx, run) // queues only
		_ = pipe.Process(ctx, confirm)
		_, err = pipe.Exec(ctx)
		_ = c.hook.after(err) // the hook of a Cluster does not see its nodes
		run.SetErr(Wrap(run.Err()))
		switch err := run.Err(); {
		case notRun(err, "NOSCRIPT") && call.args[0] == "evalsha":
			call = call.eval()
			continue
		case notRun(err, "ASK"):
			return c.Run(ctx, s, keys, args...), 0
		case notRun(err, "MOVED"):
			c.hook.lost()
			if c.pause(ctx, attempt) {
				continue
			}
		case notRun(err, "TRYAGAIN") && c.pause(ctx, attempt):
			continue
		}
		n, _ := confirm.Int() // 0 when it failed
		if run.Err() != nil && !errors.Is(run.Err(), redis.Nil) {
			n = 0
		}
		return call.finish(run.Cmd), n
	}
}

// master is the client of the server that a key belongs to.
func (c *Client) master(ctx context.Context, key string) (redis.UniversalClient, error) {
	cluster, ok := c.rdb.(*redis.ClusterClient)
	if !ok {
		return c.rdb, nil
	}
	node, err := cluster.MasterForKey(ctx, key)
	return node, Wrap(err)
}
