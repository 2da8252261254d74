package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"dray/client"
)

type demoCmd struct {
	Drivers int    `help:"Size of the fleet." default:"200"`
	City    string `help:"Where it drives: ${enum}." enum:"austin,karachi" default:"austin"`
	Seed    uint64 `help:"Makes the same fleet again; 0 takes a new one each time." default:"0"`
	Listen  string `help:"Address and port to listen on; loopback only." default:"127.0.0.1:8080" env:"DRAY_LISTEN"`
	serverFlags
}

// Validate checks what kong can't.
func (c *demoCmd) Validate() error {
	if c.Drivers < 1 || c.Drivers > 100_000 {
		return fmt.Errorf("--drivers must be 1 to 100000")
	}
	return c.serverFlags.Validate()
}

// Help is shown by dray demo --help.
func (*demoCmd) Help() string {
	return `A server, and drivers that report to it once a second over WebSockets, on a grid of streets,
free or busy. Data lives in the process unless a Redis is configured, as for dray serve.`
}

// Run serves and drives until a signal comes.
func (c *demoCmd) Run(a *app) error {
	s, err := a.start(c.Listen, &c.serverFlags)
	if err != nil {
		return err
	}
	city := places[c.City]
	shape := ""
	if city != austin {
		shape = "--nearby " + city.String()
	}
	fmt.Fprintf(a.stdout, "%d drivers move through %s. See them from a second terminal:\n\n    %s\n\n%s\nCtrl-C stops.\n",
		c.Drivers, city.name, watchCommand(s.ws(), shape), s.where())

	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	var sent, refused atomic.Int64
	drove := make(chan error, 1)
	seed := c.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	go func() {
		drove <- newFleet(city, c.Drivers, seed).run(ctx, client.Config{
			URL:     s.ws(),
			Logger:  a.log,
			Refused: func(client.Refusal) { refused.Add(1) },
		}, func() { sent.Add(1) })
	}()
	told := make(chan struct{})
	go func() {
		defer close(told)
		c.tell(ctx, a, &sent, &refused)
	}()

	waited := make(chan error, 1)
	go func() { waited <- s.wait(ctx) }()
	var failure error
	select {
	case failure = <-drove:
		cancel()
		<-waited
	case failure = <-waited:
		cancel()
		<-drove
		if failure != nil { // the server is gone already
			<-told
			return failure
		}
	}
	<-told
	if err := s.stop(); failure == nil {
		failure = err
	}
	return failure
}

// tell prints the rate: in place on a terminal, else now and then.
func (c *demoCmd) tell(ctx context.Context, a *app, sent, refused *atomic.Int64) {
	every, before, after := 30*time.Second, "", "\n"
	if isTerminal(a.stdout) {
		every, before, after = time.Second, "\r\x1b[K", ""
		defer fmt.Fprintln(a.stdout)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last, at := int64(0), time.Now(); ; {
		select {
		case now := <-tick.C:
			n := sent.Load()
			fmt.Fprintf(a.stdout, "%s%d drivers, %.0f positions/s, %d sent, %d refused%s",
				before, c.Drivers, float64(n-last)/now.Sub(at).Seconds(), n, refused.Load(), after)
			last, at = n, now
		case <-ctx.Done():
			return
		}
	}
}
