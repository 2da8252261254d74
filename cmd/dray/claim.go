package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"dray"
	"dray/client"
)

type claimCmd struct {
	clientFlags
	Nearby string        `help:"Where to look; the radius in metres. Default: ${demo_place}, the place of dray demo." placeholder:"LAT,LON,RADIUS"`
	Count  int           `help:"Drivers wanted, 1 to 100; fewer are held where there are fewer." default:"1"`
	TTL    time.Duration `name:"ttl" help:"How long they are held: 1 s to 1 h, in seconds, or with a unit as 5m." default:"60s"`
	Filter []string      `help:"Only drivers with this attribute. Several values of one key: any of them; several keys: all." placeholder:"KEY=VALUE" sep:"none"`
	Key    string        `help:"The same key and request get the same answer again, for 24 hours."`
	JSON   bool          `name:"json" help:"The answer as one line of JSON, as over REST."`
}

// Help is shown by dray claim --help.
func (*claimCmd) Help() string {
	return `Examples:
  dray claim --nearby 30.2672,-97.7431,2000 --filter status=free --ttl 5m
  dray claim --count 3 --key order-17 --json

The first line names the claim; dray unclaim gives it back before its time.`
}

// Run makes one claim.
func (c *claimCmd) Run(a *app) error {
	shape := shapeFlags{Nearby: c.Nearby, Filter: c.Filter}
	where, _, err := shape.shape()
	if err != nil {
		return err
	}
	if _, err := wholeSeconds(c.TTL); err != nil {
		return err
	}
	if c.Count < 1 {
		return usagef("--count is %d: it must be 1 to %d", c.Count, dray.MaxClaimed)
	}
	r := dray.ClaimRequest{Circle: *where.Nearby, Count: c.Count, TTL: c.TTL, Key: c.Key}
	if r.Filter, err = shape.filter(); err != nil {
		return err
	}
	if err := r.Validate(); err != nil {
		return usageError{err}
	}
	cl, err := c.dial(a.ctx, client.Config{Logger: discard})
	if err != nil {
		return interrupted(a.ctx, err)
	}
	defer cl.Close()
	claim, err := cl.Claim(a.ctx, r)
	if err != nil {
		return interrupted(a.ctx, fmt.Errorf("claim: %w", err))
	}
	return c.print(a.stdout, &claim)
}

// print writes the claim: its id, then a line for each driver.
func (c *claimCmd) print(w io.Writer, claim *dray.Claim) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(claim)
	}
	text := fmt.Sprintf("%s  %s until %s\n", claim.ID, count(len(claim.Drivers), "driver"), claim.ExpiresAt.Local().Format(time.TimeOnly))
	for _, d := range claim.Drivers {
		text += fmt.Sprintf("%s  %.0f m  %v,%v  %s\n", d.Driver, d.Distance, d.Latitude, d.Longitude, attributes(d.Attributes))
	}
	_, err := io.WriteString(w, text)
	return err
}

type unclaimCmd struct {
	clientFlags
	Claim string `arg:"" help:"The claim, as dray claim named it."`
}

// Run ends one claim.
func (c *unclaimCmd) Run(a *app) error {
	cl, err := c.dial(a.ctx, client.Config{Logger: discard})
	if err != nil {
		return interrupted(a.ctx, err)
	}
	defer cl.Close()
	if err := cl.Unclaim(a.ctx, c.Claim); err != nil {
		return interrupted(a.ctx, fmt.Errorf("unclaim: %w", err))
	}
	return nil
}
