package client_test

import (
	"context"
	"fmt"

	"dray"
	"dray/client"
)

func Example() {
	ctx := context.Background()
	url, stop, err := node(ctx) // or ws://127.0.0.1:8080/v1/ws, where dray serve runs
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	c, err := client.Dial(ctx, client.Config{URL: url})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	center := dray.Point{Latitude: 24.8607, Longitude: 67.0011}
	sub, err := c.Subscribe(ctx, dray.Shape{
		Nearby: &dray.Circle{Latitude: center.Latitude, Longitude: center.Longitude, Radius: 2000},
	}, dray.Filter{"status": {"free"}}, 0)
	if err != nil {
		fmt.Println(err)
		return
	}

	van := dray.NewPosition("van-7", center)
	van.Attributes = map[string]string{"status": "free"}
	if err := c.Report(ctx, van); err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		e, err := sub.Next(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("snapshot:", e.Snapshot)
		for _, d := range e.Entered {
			fmt.Println("entered:", d.Driver, d.Latitude, d.Longitude)
		}
	}
	// Output:
	// snapshot: true
	// snapshot: false
	// entered: van-7 24.8607 67.0011
}
