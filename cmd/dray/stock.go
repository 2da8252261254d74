package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"dray"
)

type stockCmd struct {
	Get    stockGetCmd    `cmd:"" help:"Show what a location has of a SKU."`
	Set    stockSetCmd    `cmd:"" help:"Set how many units there are."`
	Adjust stockAdjustCmd `cmd:"" help:"Add units, or take some away."`
	Place  stockPlaceCmd  `cmd:"" help:"Say where a location is, so that carts can be reserved near it."`
	List   stockListCmd   `cmd:"" help:"Show all that a location has."`
	Ledger stockLedgerCmd `cmd:"" help:"Show what changed a SKU, or what a reservation changed."`
}

// placeFlags say which stock a command is about, and how it is shown.
type placeFlags struct {
	clientFlags
	Location string `help:"Where the stock is." placeholder:"default" xor:"place"`
	JSON     bool   `name:"json" help:"JSON as on the wire, an object a line, instead of a table."`
}

// at is the path to the stock of the location, and on to a SKU.
func (c *placeFlags) at(on ...string) []string {
	return append([]string{"v1", "stock", cmp.Or(c.Location, dray.DefaultLocation)}, on...)
}

// changeFlags are those of a change.
type changeFlags struct {
	Key      string `help:"Makes it safe to repeat: the same key with the same request does it once."`
	Replicas int    `help:"Replicas that must have confirmed it, where that is more than the server asks for." default:"0"`
}

type stockGetCmd struct {
	placeFlags
	SKU string `arg:"" help:"What to look for."`
}

// Help is shown by dray stock get --help.
func (*stockGetCmd) Help() string {
	return `Example:
  dray stock get apple --location shop-1`
}

// Run shows one SKU.
func (c *stockGetCmd) Run(a *app) error {
	return c.show(a, restCall{method: "GET", path: c.at(c.SKU)})
}

// show makes a request whose answer is a Stock.
func (c *placeFlags) show(a *app, call restCall) error {
	var s dray.Stock
	if err := c.ask(a, call, &s); err != nil {
		return err
	}
	return c.rows(a.stdout, []dray.Stock{s})
}

func (c *placeFlags) rows(w io.Writer, stock []dray.Stock) error {
	if c.JSON {
		return jsonLines(w, stock)
	}
	rows := make([][]string, len(stock))
	for i, s := range stock {
		rows[i] = []string{s.Location, s.SKU, decimal(s.Quantity), decimal(s.Reserved), decimal(s.Available), decimal(s.Version), clock(s.LastUpdated)}
	}
	return grid(w, []string{"<LOCATION", "<SKU", "QUANTITY", "RESERVED", "AVAILABLE", "VERSION", "<UPDATED"}, rows)
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// jsonLines writes each value as a line.
func jsonLines[T any, P interface {
	*T
	json.Marshaler
}](w io.Writer, all []T) error {
	for i := range all {
		line, err := P(&all[i]).MarshalJSON()
		if err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

type stockSetCmd struct {
	placeFlags
	changeFlags
	Force    bool   `help:"Also below what is reserved."`
	New      bool   `help:"Only if the SKU does not exist yet." xor:"version"`
	Version  int64  `name:"if-version" help:"Only if the stock has this version, as stock get shows it." placeholder:"N" xor:"version"`
	Reason   string `help:"Why, for the ledger."`
	SKU      string `arg:"" help:"What to set."`
	Quantity int64  `arg:"" help:"Units on hand, those that are held included."`
}

// Help is shown by dray stock set --help.
func (*stockSetCmd) Help() string {
	return `Examples:
  dray stock set apple 100
  dray stock set apple 120 --if-version 17956485970169 --reason "counted on Monday"`
}

// Run sets a quantity.
func (c *stockSetCmd) Run(a *app) error {
	header := map[string]string{"Idempotency-Key": c.Key}
	switch {
	case c.New:
		header["If-None-Match"] = "*"
	case c.Version != 0:
		header["If-Match"] = fmt.Sprintf(`"%d"`, c.Version)
	}
	return c.show(a, restCall{"PUT", c.at(c.SKU), nil, header,
		map[string]any{"quantity": c.Quantity, "force": c.Force, "reason": c.Reason, "replicas": c.Replicas}})
}

type stockAdjustCmd struct {
	placeFlags
	changeFlags
	Reason string `help:"Why, for the ledger."`
	SKU    string `arg:"" help:"What to adjust."`
	Delta  int64  `arg:"" help:"Units more; less, where it is negative."`
}

// Help is shown by dray stock adjust --help.
func (*stockAdjustCmd) Help() string {
	return `Examples:
  dray stock adjust apple 40 --reason "delivery 17" --key delivery-17
  dray stock adjust apple -2 --reason broken`
}

// Run adjusts a quantity.
func (c *stockAdjustCmd) Run(a *app) error {
	return c.show(a, restCall{"POST", c.at(c.SKU, "adjust"), nil,
		map[string]string{"Idempotency-Key": c.Key},
		map[string]any{"delta": c.Delta, "reason": c.Reason, "replicas": c.Replicas}})
}

type stockPlaceCmd struct {
	clientFlags
	Forget   bool   `help:"The location is nowhere any more; its stock stays."`
	Location string `arg:"" help:"Which location."`
	Place    string `arg:"" optional:"" help:"Where it is: LAT,LON."`
}

// Help is shown by dray stock place --help.
func (*stockPlaceCmd) Help() string {
	return `Examples:
  dray stock place shop-1 30.2672,-97.7431
  dray stock place shop-1 --forget`
}

// Run places a location.
func (c *stockPlaceCmd) Run(a *app) error {
	path := []string{"v1", "locations", c.Location}
	if c.Forget {
		return c.ask(a, restCall{method: "DELETE", path: path}, nil)
	}
	if c.Place == "" {
		return usagef("a place LAT,LON or --forget is needed (dray stock place --help tells more)")
	}
	n, err := numbers("the place", c.Place, 2)
	if err != nil {
		return err
	}
	return c.ask(a, restCall{method: "PUT", path: path, body: dray.Point{Latitude: n[0], Longitude: n[1]}}, nil)
}

const pageSize = 1000 // rows of one request

type stockListCmd struct{ placeFlags }

// Help is shown by dray stock list --help.
func (*stockListCmd) Help() string {
	return `Example:
  dray stock list --location shop-1 --json > shop-1.jsonl`
}

// Run shows a location, a page at a time as it comes.
func (c *stockListCmd) Run(a *app) error {
	var all []dray.Stock
	for cursor := ""; ; {
		var page struct {
			Stock  []dray.Stock `json:"stock"`
			Cursor string       `json:"cursor"`
		}
		err := c.ask(a, restCall{method: "GET", path: c.at(), query: pageQuery(cursor, pageSize)}, &page)
		if err != nil {
			return err
		}
		all = append(all, page.Stock...)
		if cursor = page.Cursor; cursor == "" {
			return c.rows(a.stdout, all)
		}
	}
}

func pageQuery(cursor string, limit int) url.Values {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return q
}

type stockLedgerCmd struct {
	placeFlags
	Limit       int    `help:"Entries to show, the newest ones." default:"50"`
	Reservation string `help:"Instead of a SKU: what this reservation changed." placeholder:"ID"`
	SKU         string `arg:"" optional:"" help:"What changed."`
}

// Validate checks what kong can't.
func (c *stockLedgerCmd) Validate() error {
	if (c.SKU == "") == (c.Reservation == "") {
		return fmt.Errorf("a SKU or --reservation is needed, and not both")
	}
	if c.Limit < 1 {
		return fmt.Errorf("--limit must be 1 or more")
	}
	return nil
}

// Help is shown by dray stock ledger --help.
func (*stockLedgerCmd) Help() string {
	return `Examples:
  dray stock ledger apple --location shop-1
  dray stock ledger --reservation shop-1.5QX2EOB7GIRUNJ5K`
}

// Run shows entries, newest first.
func (c *stockLedgerCmd) Run(a *app) error {
	path := c.at(c.SKU, "ledger")
	if c.Reservation != "" {
		path = []string{"v1", "reservations", c.Reservation, "ledger"}
	}
	var all []dray.LedgerEntry
	for cursor := ""; ; {
		var page struct {
			Entries []dray.LedgerEntry `json:"entries"`
			Cursor  string             `json:"cursor"`
		}
		err := c.ask(a, restCall{method: "GET", path: path, query: pageQuery(cursor, min(pageSize, c.Limit-len(all)))}, &page)
		if err != nil {
			return err
		}
		all = append(all, page.Entries...)
		if cursor = page.Cursor; cursor == "" || len(all) >= c.Limit {
			break
		}
	}
	if c.JSON {
		return jsonLines(a.stdout, all)
	}
	rows := make([][]string, len(all))
	for i, e := range all {
		rows[i] = []string{decimal(e.Entry), clock(e.At), e.SKU, string(e.Kind), step(e.Quantity), step(e.Reserved), e.Reservation, printable(e.Reason), e.By}
	}
	return grid(a.stdout, []string{"ENTRY", "<AT", "<SKU", "<KIND", "QUANTITY", "RESERVED", "<RESERVATION", "<REASON", "<BY"}, rows)
}

func step(s dray.Step) string {
	if s.Before == s.After {
		return decimal(s.After)
	}
	return decimal(s.Before) + " > " + decimal(s.After)
}
