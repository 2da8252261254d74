package main

import (
	"context"
	"fmt"

	"dray/loadtest"
)

type loadReserveCmd struct {
	loadFlags
	SKUs        int  `name:"skus" help:"SKUs that are reserved; 1 is a hot one." default:"1"`
	Connections int  `help:"Connections that reserve." default:"64"`
	InFlight    int  `help:"Orders of a connection under way, over the WebSocket." default:"4"`
	HTTP        bool `name:"http" help:"Reserve over REST, an order at a time, as the naive server is always asked."`
	Keys        bool `help:"Give each order an idempotency key."`
}

func (c *loadReserveCmd) settings(a *app) *loadtest.ReservePlan {
	return &loadtest.ReservePlan{
		Plan: c.plan(a, 1, 1000), SKUs: c.SKUs, Connections: c.Connections, InFlight: c.InFlight, HTTP: c.HTTP, Keys: c.Keys,
	}
}

// Validate checks what kong can't.
func (c *loadReserveCmd) Validate() error { return c.validate(c.settings(new(app))) }

// Help is shown by dray loadtest reserve --help.
func (*loadReserveCmd) Help() string {
	return `Examples:
  dray loadtest reserve                      one hot SKU, over WebSockets
  dray loadtest reserve --skus 10000 --http

Each order is one unit, held for an hour. The naive server runs one EVALSHA a request and is asked
over HTTP. Nothing of what was reserved is committed: see flash-sale.`
}

// Run measures.
func (c *loadReserveCmd) Run(a *app) error {
	p := c.settings(a)
	how := fmt.Sprintf("WebSockets with %d orders under way", p.InFlight)
	if p.HTTP {
		how = "HTTP connections"
	}
	what := fmt.Sprintf("one unit at a time of %d SKUs, %d %s", p.SKUs, p.Connections, how)
	return c.compare(a, "reserve", what, scenario{
		server: func(ctx context.Context, t loadtest.Target) (*loadtest.Result, error) {
			plan := *p
			plan.HTTP = p.HTTP || t.Name == "naive"
			return loadtest.Reserve(ctx, t, &plan)
		},
	})
}

type saleCmd struct {
	loadFlags
	Units       int64   `help:"Units on sale." default:"100000"`
	Connections int     `help:"Buyers, one order each at a time." default:"64"`
	Repeat      float64 `help:"Part of the orders that are sent a second time under the same key." default:"0.1"`
}

func (c *saleCmd) settings(a *app) *loadtest.SalePlan {
	return &loadtest.SalePlan{Plan: c.plan(a, 1, 1000), Units: c.Units, Connections: c.Connections, Repeat: c.Repeat}
}

// Validate checks what kong can't.
func (c *saleCmd) Validate() error { return c.validate(c.settings(new(app))) }

// Help is shown by dray loadtest flash-sale --help.
func (*saleCmd) Help() string {
	return `Each buyer reserves a unit, commits it, and takes the next, until all are sold; a unit sold is a
reservation and its commit. --duration and --warmup play no part.

  dray loadtest flash-sale --units 1000 --connections 500`
}

// Run measures.
func (c *saleCmd) Run(a *app) error {
	p := c.settings(a)
	what := fmt.Sprintf("%d units of one SKU, %d buyers, %.0f%% of the orders sent twice", p.Units, p.Connections, 100*p.Repeat)
	return c.compare(a, "flash-sale", what, scenario{
		unlike: true,
		server: func(ctx context.Context, t loadtest.Target) (*loadtest.Result, error) {
			return loadtest.FlashSale(ctx, t, p)
		},
	})
}
