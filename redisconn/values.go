package redisconn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"dray"

	"github.com/redis/go-redis/v9"
)

// The methods of this file are for everyday use. Each is one round trip and puts
// [Client.Prefix] before its keys. What is not there is a zero value and false, not an error;
// they fail with [dray.ErrUnavailable]. A write whose answer is lost may have been done.

// Get returns the string at key.
func (c *Client) Get(ctx context.Context, key string) (value string, found bool, err error) {
	return present(c.rdb.Get(ctx, c.key(key)).Result())
}

// Set stores a string for ttl, to the millisecond; ttl 0 keeps it for good.
func (c *Client) Set(ctx context.Context, key, value string, ttl time.Duration) error {
	args := []any{c.key(key), value}
	if ttl != 0 {
		args = append(args, "PX", max(ttl.Milliseconds(), 1))
	}
	return c.do(ctx, "SET", args...).Err()
}

// Delete removes keys of any kind and returns how many there were.
func (c *Client) Delete(ctx context.Context, keys ...string) (n int, err error) {
	calls := make([]Call, len(keys)) // one for each key: in a Cluster they lie apart
	for i, key := range keys {
		calls[i] = Command("DEL", c.key(key))
	}
	for _, cmd := range c.RunAll(ctx, calls) {
		one, e := cmd.Int()
		n += one
		if err == nil {
			err = e
		}
	}
	return n, err
}

// GetJSON decodes the JSON at key. It fails with [dray.ErrUnavailable] too when the value is no T.
func GetJSON[T any](ctx context.Context, c *Client, key string) (value T, found bool, err error) {
	text, found, err := c.Get(ctx, key)
	if !found {
		return value, false, err
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		var zero T
		return zero, false, fmt.Errorf("%w: the value of key %q: %w", dray.ErrUnavailable, key, err)
	}
	return value, true, nil
}

// SetJSON stores value as JSON for ttl; ttl 0 keeps it for good.
func SetJSON[T any](ctx context.Context, c *Client, key string, value T, ttl time.Duration) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	return c.Set(ctx, key, string(text), ttl)
}

// HashSet sets fields of the hash at key and leaves its others.
func (c *Client) HashSet(ctx context.Context, key string, fields map[string]string) error {
	if len(fields) == 0 {
		return nil
	}
	args := []any{c.key(key)}
	for name, value := range fields {
		args = append(args, name, value)
	}
	return c.do(ctx, "HSET", args...).Err()
}

// HashGet returns one field of the hash at key.
func (c *Client) HashGet(ctx context.Context, key, field string) (value string, found bool, err error) {
	return present(c.rdb.HGet(ctx, c.key(key), field).Result())
}

// HashGetAll returns all fields of the hash at key; none when there is no hash.
func (c *Client) HashGetAll(ctx context.Context, key string) (map[string]string, error) {
	return c.rdb.HGetAll(ctx, c.key(key)).Result()
}

// HashDelete removes fields of the hash at key.
func (c *Client) HashDelete(ctx context.Context, key string, fields ...string) error {
	return c.doMany(ctx, "HDEL", key, fields)
}

// ListPush appends values to the list at key.
func (c *Client) ListPush(ctx context.Context, key string, values ...string) error {
	return c.doMany(ctx, "RPUSH", key, values)
}

// ListPop takes the first value off the list at key.
func (c *Client) ListPop(ctx context.Context, key string) (value string, found bool, err error) {
	return present(c.do(ctx, "LPOP", c.key(key)).Text())
}

// ListRange returns the values from first to last, both included; negative places count from the end.
func (c *Client) ListRange(ctx context.Context, key string, first, last int) ([]string, error) {
	return c.rdb.LRange(ctx, c.key(key), int64(first), int64(last)).Result()
}

// SetAdd adds members to the set at key.
func (c *Client) SetAdd(ctx context.Context, key string, members ...string) error {
	return c.doMany(ctx, "SADD", key, members)
}

// SetRemove removes members from the set at key.
func (c *Client) SetRemove(ctx context.Context, key string, members ...string) error {
	return c.doMany(ctx, "SREM", key, members)
}

// SetHas tells whether member is in the set at key.
func (c *Client) SetHas(ctx context.Context, key, member string) (bool, error) {
	return c.rdb.SIsMember(ctx, c.key(key), member).Result()
}

// SetMembers returns the members of the set at key, in no order.
func (c *Client) SetMembers(ctx context.Context, key string) ([]string, error) {
	return c.rdb.SMembers(ctx, c.key(key)).Result()
}

func (c *Client) key(key string) string { return c.config.KeyPrefix + key }

// do sends a command that is not to be sent twice.
func (c *Client) do(ctx context.Context, name string, args ...any) *redis.Cmd {
	cmd := Command(name, args...).once(ctx)
	_ = c.rdb.Process(ctx, cmd) // the error is in cmd
	return cmd.Cmd
}

func (c *Client) doMany(ctx context.Context, name, key string, values []string) error {
	if len(values) == 0 {
		return nil
	}
	args := make([]any, 1, 1+len(values))
	args[0] = c.key(key)
	for _, v := range values {
		args = append(args, v)
	}
	return c.do(ctx, name, args...).Err()
}

func present(value string, err error) (string, bool, error) {
	if errors.Is(err, redis.Nil) {
		return "", false, nil
	}
	return value, err == nil, err
}
