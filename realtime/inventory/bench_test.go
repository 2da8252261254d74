package inventory_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// naiveLua is the script one would write first: one cart of one line a call, with hold, due
// time and ledger entry.
const naiveLua = `
local q = tonumber(redis.call('HGET', KEYS[1], 'quantity') or 0)
local r = tonumber(redis.call('HGET', KEYS[1], 'reserved') or 0)
local n = tonumber(ARGV[2])
if q - r < n then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'reserved', r + n)
redis.call('HSET', KEYS[2], 'sku', ARGV[3], 'quantity', n, 'status', 'held', 'expires', now + ARGV[4])
redis.call('ZADD', KEYS[3], now + ARGV[4], ARGV[1])
redis.call('XADD', KEYS[4], '*', 'kind', 'hold', 'sku', ARGV[3], 'reservation', ARGV[1], 'before', r, 'after', r + n)
return 1`

// BenchmarkReserve is 64 callers that reserve one unit each, of one SKU and of 10 000, through the
// Store and by the naive script over the same client. us/redis is the CPU time of redis-server.
func BenchmarkReserve(b *testing.B) {
	server := redistest.Start(b, "--save", "", "--appendonly", "no")
	for _, skus := range []int{1, 10_000} {
		for _, way := range []string{"naive", "store"} {
			b.Run(fmt.Sprintf("%s/skus=%d", way, skus), func(b *testing.B) {
				c := server.Config()
				c.KeyPrefix = redistest.Prefix(b)
				client := redistest.Open(b, c)
				reserve := naive(client)
				if way == "store" {
					reserve = ofStore(b, client, skus)
				} else {
					for i := range skus {
						client.HashSet(b.Context(), "{n}stock:"+sku(i), map[string]string{"quantity": "1000000000"})
					}
				}
				before, own := redistest.CPU(b, client), redistest.OwnCPU(b)
				var next atomic.Int64
				var callers sync.WaitGroup
				b.ResetTimer()
				for range 64 {
					callers.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							if err := reserve(b.Context(), sku(int(i)%skus), i); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				callers.Wait()
				b.StopTimer()
				b.ReportMetric(float64((redistest.CPU(b, client)-before).Microseconds())/float64(b.N), "us-redis/op")
				b.ReportMetric(float64((redistest.OwnCPU(b)-own).Microseconds())/float64(b.N), "us-go/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
			})
		}
	}
}

func sku(i int) string { return "sku-" + strconv.Itoa(i) }

func ofStore(b *testing.B, client *redisconn.Client, skus int) func(context.Context, string, int64) error {
	s := newStore(b, inventory.Config{Redis: client})
	for i := range skus {
		set(b, s, "shop", sku(i), 1e9)
	}
	return func(ctx context.Context, sku string, i int64) error {
		_, err := s.Reserve(ctx, "shop", cart(sku, 1), time.Hour, inventory.Options{})
		return err
	}
}

func naive(client *redisconn.Client) func(context.Context, string, int64) error {
	script := redisconn.NewScript("naive.lua", naiveLua)
	return func(ctx context.Context, sku string, i int64) error {
		id := strconv.FormatInt(i, 10)
		keys := []string{"{n}stock:" + sku, "{n}hold:" + id, "{n}due", "{n}ledger"}
		return client.Run(ctx, script, keys, id, 1, sku, 3600000).Err()
	}
}
