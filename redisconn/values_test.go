package redisconn_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"dray"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

type shop struct {
	Name string `json:"name"`
	Open bool   `json:"open"`
}

func Example() {
	ctx := context.Background()
	client, err := redisconn.Open(ctx, redisconn.ForDevelopment())
	if err != nil {
		panic(err)
	}
	defer client.Close()

	_ = client.Set(ctx, "greeting", "hello", time.Minute)
	greeting, found, err := client.Get(ctx, "greeting")
	fmt.Println(greeting, found, err)

	_ = redisconn.SetJSON(ctx, client, "shop:1", shop{Name: "Corner", Open: true}, 0)
	corner, found, err := redisconn.GetJSON[shop](ctx, client, "shop:1")
	fmt.Println(corner.Name, corner.Open, found, err)

	_, found, err = client.Get(ctx, "nothing here")
	fmt.Println(found, err)

	// Output:
	// hello true <nil>
	// Corner true true <nil>
	// false <nil>
}

func ExampleClient_Run() {
	ctx := context.Background()
	client, err := redisconn.Open(ctx, redisconn.ForDevelopment())
	if err != nil {
		panic(err)
	}
	defer client.Close()

	take := redisconn.NewScript("take", `
		local left = tonumber(redis.call('GET', KEYS[1]) or 0)
		if left < tonumber(ARGV[1]) then return -1 end
		return redis.call('DECRBY', KEYS[1], ARGV[1])`)
	_ = client.Set(ctx, "apples", "3", 0)
	for range 2 {
		left, err := client.Run(ctx, take, []string{"apples"}, 2).Int()
		fmt.Println(left, err)
	}
	// Output:
	// 1 <nil>
	// -1 <nil>
}

func TestValues(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			c := redistest.Open(t, m.config(t))
			ctx := within(t, 5*time.Second)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}

			must(c.HashSet(ctx, "hash", map[string]string{"a": "1", "b": "2"}))
			must(c.HashSet(ctx, "hash", nil))
			if v, found, err := c.HashGet(ctx, "hash", "a"); v != "1" || !found || err != nil {
				t.Errorf("HashGet(a) = %q, %v, %v", v, found, err)
			}
			if _, found, err := c.HashGet(ctx, "hash", "c"); found || err != nil {
				t.Errorf("HashGet(c) = %v, %v, want false, nil", found, err)
			}
			must(c.HashDelete(ctx, "hash", "a"))
			if got, err := c.HashGetAll(ctx, "hash"); !maps.Equal(got, map[string]string{"b": "2"}) || err != nil {
				t.Errorf("HashGetAll() = %v, %v", got, err)
			}

			must(c.ListPush(ctx, "list", "a", "b", "c"))
			if v, found, err := c.ListPop(ctx, "list"); v != "a" || !found || err != nil {
				t.Errorf("ListPop() = %q, %v, %v", v, found, err)
			}
			if got, err := c.ListRange(ctx, "list", 0, -1); !slices.Equal(got, []string{"b", "c"}) || err != nil {
				t.Errorf("ListRange() = %v, %v", got, err)
			}
			if _, found, err := c.ListPop(ctx, "none"); found || err != nil {
				t.Errorf("ListPop(none) = %v, %v, want false, nil", found, err)
			}

			must(c.SetAdd(ctx, "set", "a", "b"))
			must(c.SetAdd(ctx, "set"))
			must(c.SetRemove(ctx, "set", "b"))
			if has, err := c.SetHas(ctx, "set", "a"); !has || err != nil {
				t.Errorf("SetHas(a) = %v, %v", has, err)
			}
			if got, err := c.SetMembers(ctx, "set"); !slices.Equal(got, []string{"a"}) || err != nil {
				t.Errorf("SetMembers() = %v, %v", got, err)
			}

			must(redisconn.SetJSON(ctx, c, "json", shop{Name: "x"}, time.Minute))
			if got, found, err := redisconn.GetJSON[shop](ctx, c, "json"); got.Name != "x" || !found || err != nil {
				t.Errorf("GetJSON() = %v, %v, %v", got, found, err)
			}
			if _, found, err := redisconn.GetJSON[shop](ctx, c, "none"); found || err != nil {
				t.Errorf("GetJSON(none) = %v, %v, want false, nil", found, err)
			}
			must(c.Set(ctx, "json", "{", 0))
			if _, found, err := redisconn.GetJSON[shop](ctx, c, "json"); found || !errors.Is(err, dray.ErrUnavailable) {
				t.Errorf("GetJSON(bad) = %v, %v, want ErrUnavailable", found, err)
			}
			if err := redisconn.SetJSON(ctx, c, "json", make(chan int), 0); err == nil {
				t.Error("SetJSON(chan) = nil, want an error")
			}
			if n, err := c.Delete(ctx, "hash", "list", "set", "json", "none"); n != 4 || err != nil {
				t.Errorf("Delete() = %d, %v, want 4", n, err)
			}
		})
	}
}
