package inventory_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray"
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

// BenchmarkLiveStock is 64 callers that reserve SKUs of one location, an op each, while 500
// subscriptions watch 20 of them each: of 10 000, so that one is told of an op, or of 100, so that
// a hundred are. A delivery is a row that one is told; it costs what the ops took more than as many
// that nobody watched. In the end all hold the Store's rows.
func BenchmarkLiveStock(b *testing.B) {
	const watchers, named = 500, 20
	client := redistest.Open(b, redistest.Start(b).Config())
	store := newStore(b, inventory.Config{Redis: client})
	for i := range 10_000 {
		set(b, store, "shop", sku(i), 1e9)
	}
	for _, skus := range []int{10_000, 100} {
		b.Run(fmt.Sprint("skus=", skus), func(b *testing.B) {
			reserve := func() {
				b.SetParallelism(64 / runtime.GOMAXPROCS(0))
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := store.Reserve(b.Context(), "shop", cart(sku(rand.IntN(skus)), 1), time.Hour, inventory.Options{}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			cost := func(f func()) (redis, own float64) {
				before, ownBefore := redistest.CPU(b, client), redistest.OwnCPU(b)
				f()
				return float64((redistest.CPU(b, client) - before).Microseconds()), float64((redistest.OwnCPU(b) - ownBefore).Microseconds())
			}
			redisAlone, ownAlone := cost(reserve)

			set(b, store, "shop", "last", 1)
			hub := inventory.NewHub(inventory.HubConfig{Redis: client})
			b.Cleanup(hub.Close)
			due := make(chan int, watchers) // each is there once at most
			subs, rows := make([]*inventory.Subscription, watchers), make([]map[string][]byte, watchers)
			for i := range subs {
				shape := dray.StockShape{Location: "shop", SKUs: []string{"last"}}
				for _, n := range rand.Perm(skus)[:named] {
					shape.SKUs = append(shape.SKUs, sku(n))
				}
				var err error
				if subs[i], err = hub.Subscribe(b.Context(), shape, inventory.WatchOptions{Due: func() { due <- i }}); err != nil {
					b.Fatal(err)
				}
				rows[i] = make(map[string][]byte)
			}
			var c inventory.Change
			deliveries := 0
			next := func() (outOfStock int) {
				i := <-due
				subs[i].Next(&c)
				for _, row := range c.Rows {
					rows[i][nameOf(row)] = row
				}
				deliveries += len(c.Rows)
				return len(c.Events)
			}
			for range watchers { // the snapshots
				next()
			}
			deliveries = 0
			b.ResetTimer()
			redis, own := cost(func() {
				var told sync.WaitGroup
				told.Go(func() {
					for n := 0; n < watchers; {
						n += next()
					}
				})
				reserve()
				set(b, store, "shop", "last", 0) // of which all are told last
				told.Wait()
			})
			b.StopTimer()
			b.ReportMetric((redis-redisAlone)/float64(deliveries), "us-redis/delivery")
			b.ReportMetric((own-ownAlone)/float64(deliveries), "us-go/delivery")
			b.ReportMetric(float64(deliveries)/float64(b.N), "deliveries/op")
			b.ReportMetric(float64(deliveries)/b.Elapsed().Seconds(), "deliveries/s")

			want := make(map[string][]byte)
			for cursor, more := "", true; more; more = cursor != "" {
				page, after, err := store.List(b.Context(), "shop", cursor, dray.MaxLimit)
				if err != nil {
					b.Fatal(err)
				}
				for _, stock := range page {
					row := stock.AppendJSON(nil)
					want[nameOf(row)] = row
				}
				cursor = after
			}
			for i := range rows {
				if len(rows[i]) != named+1 {
					b.Errorf("watcher %d has %d rows, want %d", i, len(rows[i]), named+1)
				}
				for name, row := range rows[i] {
					if !bytes.Equal(row, want[name]) {
						b.Fatalf("watcher %d has %s, want %s", i, row, want[name])
					}
				}
			}
		})
	}
}

// nameOf is the beginning of a row's JSON, to the end of its SKU.
func nameOf(row []byte) string {
	name, _, _ := bytes.Cut(row, []byte(`,"quantity"`))
	return string(name)
}
