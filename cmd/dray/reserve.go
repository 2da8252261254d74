package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"dray"
)

// An item is a line of a cart as text: SKU=QUANTITY.
type item dray.Item

// UnmarshalText reads SKU=QUANTITY.
func (i *item) UnmarshalText(text []byte) error {
	sku, quantity, _ := strings.Cut(string(text), "=")
	n, err := strconv.ParseInt(quantity, 10, 64)
	if err != nil || n < 1 || n > dray.MaxQuantity || !dray.ValidID(sku) {
		return fmt.Errorf("%q is no SKU=QUANTITY of 1 or more, like apple=2", text)
	}
	*i = item{sku, n}
	return nil
}

type reserveCmd struct {
	placeFlags
	changeFlags
	Near  string        `help:"Instead of a location: the nearest one within RADIUS metres that has all of it." placeholder:"LAT,LON,RADIUS" xor:"place"`
	TTL   time.Duration `name:"ttl" help:"How long to hold it: seconds, or with a unit; to 24h." default:"10m"`
	Items []item        `arg:"" help:"What to hold: SKU=QUANTITY for each line."`
}

// Help is shown by dray reserve --help.
func (*reserveCmd) Help() string {
	return `All of it is held, or nothing. What is neither committed nor released is given back when the
time is up.

Examples:
  dray reserve apple=2 pear=1 --ttl 15m --key order-4711
  dray reserve apple=2 --near 30.2672,-97.7431,5000
  dray commit default.5QX2EOB7GIRUNJ5K`
}

// Run reserves a cart.
func (c *reserveCmd) Run(a *app) error {
	ttl, err := wholeSeconds(c.TTL)
	if err != nil {
		return err
	}
	body := map[string]any{"items": c.Items, "ttlSeconds": ttl, "replicas": c.Replicas}
	if c.Location != "" {
		body["location"] = c.Location
	}
	if c.Near != "" {
		n, err := numbers("--near", c.Near, 3)
		if err != nil {
			return err
		}
		body["near"] = dray.Circle{Latitude: n[0], Longitude: n[1], Radius: n[2]}
	}
	return c.reservation(a, c.Key, []string{"v1", "reservations"}, body)
}

// wholeSeconds is a --ttl for the wire.
func wholeSeconds(ttl time.Duration) (int64, error) {
	if ttl%time.Second != 0 {
		return 0, usagef("--ttl is %v: it must be whole seconds", ttl)
	}
	return int64(ttl / time.Second), nil
}

// reservation posts a body whose answer is a Reservation.
func (c *placeFlags) reservation(a *app, key string, path []string, body map[string]any) error {
	var r dray.Reservation
	if err := c.ask(a, restCall{"POST", path, nil, map[string]string{"Idempotency-Key": key}, body}, &r); err != nil {
		return err
	}
	if c.JSON {
		return jsonLines(a.stdout, []dray.Reservation{r})
	}
	return showReservation(a.stdout, &r)
}

func showReservation(w io.Writer, r *dray.Reservation) error {
	line := fmt.Sprintf("%s is %s", r.Reservation, r.Status)
	if r.Status == dray.StatusHeld && !r.ExpiresAt.IsZero() {
		line += " until " + clock(r.ExpiresAt)
	}
	if r.Distance >= 0 {
		line += fmt.Sprintf(", %.0f m away", r.Distance)
	}
	if r.Replicas > 0 {
		line += ", confirmed by " + count(r.Replicas, "replica")
	}
	if _, err := fmt.Fprintln(w, line); err != nil {
		return err
	}
	rows := make([][]string, len(r.Items))
	for i, it := range r.Items {
		rows[i] = []string{it.SKU, decimal(it.Quantity), decimal(it.Committed), decimal(it.Released)}
	}
	return grid(w, []string{"<SKU", "QUANTITY", "COMMITTED", "RELEASED"}, rows)
}

// partCmd resolves a reservation, or a part of it.
type partCmd struct {
	clientFlags
	changeFlags
	JSON        bool   `name:"json" help:"JSON as on the wire instead of a table."`
	Reservation string `arg:"" help:"Id of the reservation."`
	Items       []item `arg:"" optional:"" help:"A part of it: SKU=QUANTITY for each line. All that is held, where there is none."`
}

func (c *partCmd) post(a *app, do string) error {
	body := map[string]any{"replicas": c.Replicas}
	if len(c.Items) > 0 {
		body["items"] = c.Items
	}
	p := placeFlags{clientFlags: c.clientFlags, JSON: c.JSON}
	return p.reservation(a, c.Key, []string{"v1", "reservations", c.Reservation, do}, body)
}

type commitCmd struct{ partCmd }

// Help is shown by dray commit --help.
func (*commitCmd) Help() string {
	return `Examples:
  dray commit default.5QX2EOB7GIRUNJ5K
  dray commit default.5QX2EOB7GIRUNJ5K apple=1`
}

// Run commits.
func (c *commitCmd) Run(a *app) error { return c.post(a, "commit") }

type releaseCmd struct{ partCmd }

// Help is shown by dray release --help.
func (*releaseCmd) Help() string {
	return `Examples:
  dray release default.5QX2EOB7GIRUNJ5K
  dray release default.5QX2EOB7GIRUNJ5K pear=1`
}

// Run releases.
func (c *releaseCmd) Run(a *app) error { return c.post(a, "release") }

type extendCmd struct {
	clientFlags
	changeFlags
	TTL         time.Duration `name:"ttl" help:"How long to hold it from now on: seconds, or with a unit; to 24h after it was reserved." required:""`
	JSON        bool          `name:"json" help:"JSON as on the wire instead of a table."`
	Reservation string        `arg:"" help:"Id of the reservation."`
}

// Help is shown by dray extend --help.
func (*extendCmd) Help() string {
	return `Example:
  dray extend default.5QX2EOB7GIRUNJ5K --ttl 30m`
}

// Run extends.
func (c *extendCmd) Run(a *app) error {
	ttl, err := wholeSeconds(c.TTL)
	if err != nil {
		return err
	}
	p := placeFlags{clientFlags: c.clientFlags, JSON: c.JSON}
	return p.reservation(a, c.Key, []string{"v1", "reservations", c.Reservation, "extend"}, map[string]any{"ttlSeconds": ttl, "replicas": c.Replicas})
}
