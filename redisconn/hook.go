package redisconn

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// A hook sees each command and pipeline once, outside of go-redis's redirects.
type hook struct {
	lost func() // called when a connection failed
}

func (h hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h.after(next(ctx, cmd))
	}
}

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if err == nil {
			return nil
		}
		for _, cmd := range cmds {
			if e := cmd.Err(); e != nil {
				cmd.SetErr(Wrap(e))
			}
		}
		return h.after(err)
	}
}

func (h hook) after(err error) error {
	if err == nil || errors.Is(err, redis.Nil) {
		return err
	}
	// What is no reply is a connection refused, cut or silent. A caller that gave up counts as well:
	// a deadline shorter than the read timeout is all that a frozen master shows.
	if _, reply := errors.AsType[redis.Error](err); !reply && !errors.Is(err, redis.ErrClosed) {
		h.lost()
	}
	return Wrap(err)
}
