package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"

	"dray/httpapi"
	"dray/realtime/location"
	"dray/realtime/watch"
	"dray/redisconn"
)

// A whole node on the Redis that is built in.
func Example() {
	ctx := context.Background()
	redis, err := redisconn.Open(ctx, redisconn.ForDevelopment())
	if err != nil {
		panic(err)
	}
	defer redis.Close()
	store := location.New(location.Config{Redis: redis})
	defer store.Close(ctx)
	hub := watch.New(watch.Config{Redis: redis, Locations: store})
	defer hub.Close()
	api := httpapi.New(httpapi.Config{Redis: redis, Locations: store, Hub: hub})
	defer api.Shutdown(ctx)

	put := httptest.NewRequest("PUT", "/v1/drivers/van-7/position", strings.NewReader(`{"latitude":24.86,"longitude":67.01}`))
	put.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	api.Handler().ServeHTTP(answer, put)
	fmt.Println(answer.Code, answer.Body)

	answer = httptest.NewRecorder()
	api.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/v1/drivers/nearby?latitude=24.861&longitude=67.01&radius=500", nil))
	var near struct {
		Drivers []struct {
			Driver   string
			Distance float64
		}
	}
	json.Unmarshal(answer.Body.Bytes(), &near)
	fmt.Printf("%s at %.0f m\n", near.Drivers[0].Driver, near.Drivers[0].Distance)
	// Output:
	// 200 {"accepted":1,"superseded":0,"rejected":[]}
	// van-7 at 111 m
}
