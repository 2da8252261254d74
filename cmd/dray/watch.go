package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"dray"
	"dray/client"
)

type watchCmd struct {
	clientFlags
	shapeFlags
	Interval time.Duration `help:"Least time between two changes: seconds, or with a unit as 250ms; 0 shows each at once." default:"1s"`
	Sort     string        `help:"Order of the table: ${enum}. Distance is from the middle of the shape." enum:"distance,id" default:"distance"`
	JSON     bool          `name:"json" help:"One JSON object a line instead of a table: a snapshot, then deltas, as on the wire."`
	Once     bool          `help:"Show the set as it is, and end."`
	For      time.Duration `help:"End after this time." placeholder:"DURATION"`
}

// Validate checks what kong can't.
func (c *watchCmd) Validate() error {
	if c.Interval < 0 || c.Interval > dray.MaxInterval {
		return fmt.Errorf("--interval is %v: it must be 0 to %v, and a number without a unit is seconds", c.Interval, dray.MaxInterval)
	}
	return nil
}

// Help is shown by dray watch --help.
func (*watchCmd) Help() string {
	return `Examples:
  dray watch --nearby 30.2672,-97.7431,2000 --filter status=free
  dray watch --drivers demo-0001,demo-0002 --interval 0
  dray watch --stock shop-1 --low 5
  dray watch --json --for 10s > changes.jsonl

A delta is to be applied in the order left, entered, moved; a snapshot replaces the set. A lost
connection is made again, and a snapshot follows. Ctrl-C ends it.`
}

// Run watches until it is told to end.
func (c *watchCmd) Run(a *app) error {
	shape, middle, err := c.shape()
	if err != nil {
		return err
	}
	filter, err := c.filter()
	if err != nil {
		return err
	}
	ctx := a.ctx
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	view := &view{url: string(c.URL), what: describe(shape), middle: middle, byID: c.Sort == "id" || middle == nil, once: c.Once, stock: shape.Stock}
	cl, err := c.dial(ctx, client.Config{Logger: discard, OnStatus: func(s client.Status) {
		view.status(s)
		if s.RetryIn > 0 && (c.JSON || !isTerminal(a.stdout)) {
			fmt.Fprintf(a.stderr, "dray: %v; next attempt in %v\n", s.Err, s.RetryIn.Round(time.Millisecond))
		}
	}})
	if err != nil {
		return endOf(ctx, err)
	}
	defer cl.Close()
	sub, err := cl.Subscribe(ctx, shape, filter, c.Interval)
	if err != nil {
		return endOf(ctx, fmt.Errorf("subscribe: %w", err))
	}
	switch {
	case c.JSON:
		err = c.lines(ctx, a.stdout, sub)
	case c.Once:
		var e client.Event
		if e, err = sub.Next(ctx); err == nil {
			view.event(e)
			view.show(a.stdout, sub, 0, 0)
		}
	default:
		err = view.run(ctx, a.stdout, sub)
	}
	return endOf(ctx, err)
}

// endOf is nil where err came of ctx's end, which is how watching ends.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// lines writes every event as one line.
func (c *watchCmd) lines(ctx context.Context, w io.Writer, sub *client.Subscription) error {
	out := bufio.NewWriter(w)
	var line []byte
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		if c.Stock != "" {
			line = append(appendStockEvent(line[:0], e), '\n')
		} else {
			line = append(appendEvent(line[:0], e), '\n')
		}
		_, err = out.Write(line)
		if err = errors.Join(err, out.Flush()); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if c.Once {
			return nil
		}
	}
}

// appendEvent appends e as a snapshot or delta of the wire contract, drivers in order.
func appendEvent(dst []byte, e client.Event) []byte {
	kind, entered := "delta", "entered"
	if e.Snapshot {
		kind, entered = "snapshot", "drivers"
	}
	dst = fmt.Appendf(dst, `{"type":"%s","version":%d,"serverTime":%d`, kind, e.Version, e.ServerTime.UnixMilli())
	drivers := func(name string, list []dray.Driver) {
		if len(list) == 0 && !e.Snapshot || name == "moved" && len(list) == 0 {
			return
		}
		slices.SortFunc(list, byID)
		dst = fmt.Appendf(dst, `,"%s":[`, name)
		for i := range list {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = list[i].AppendJSON(dst)
		}
		dst = append(dst, ']')
	}
	drivers(entered, e.Entered)
	drivers("moved", e.Moved)
	if len(e.Left) > 0 {
		slices.SortFunc(e.Left, func(a, b dray.Leave) int { return cmp.Compare(a.Driver, b.Driver) })
		dst = append(dst, `,"left":[`...)
		for i, l := range e.Left {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dray.AppendString(append(dst, `{"driver":`...), l.Driver), `,"reason":`...)
			dst = append(dray.AppendString(dst, string(l.Reason)), '}')
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func byID(a, b dray.Driver) int { return cmp.Compare(a.Driver, b.Driver) }

// A view is the table of watch.
type view struct {
	url    string
	what   string
	middle *dray.Point
	byID   bool
	once   bool             // there is nothing to tell of but the set
	stock  *dray.StockShape // nil where drivers are watched

	mu        sync.Mutex // guards the fields below
	state     string
	moves     int       // since rated
	rated     time.Time // when moves was last 0
	rate      float64   // positions a second
	in, out   int       // entered and left since the start
	serverLag time.Duration
}

func (v *view) status(s client.Status) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.Connected {
		v.state = "connected to " + v.url
		v.serverLag = time.Since(s.Welcome.ServerTime)
		return
	}
	v.state = fmt.Sprintf("RECONNECTING in %v: %v", s.RetryIn.Round(100*time.Millisecond), s.Err)
}

func (v *view) event(e client.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.moves += len(e.Moved) + len(e.Stock)
	if !e.Snapshot {
		v.in += len(e.Entered)
		v.out += len(e.Left)
		v.moves += len(e.Entered)
	}
}

const (
	redrawLeast = 100 * time.Millisecond // between two drawings
	redrawMost  = time.Second            // ages grow by themselves
)

// run draws the set until ctx ends: in place on a terminal, else one table after the other.
func (v *view) run(ctx context.Context, w io.Writer, sub *client.Subscription) error {
	before, after := "", "\n"
	if isTerminal(w) {
		// The other screen, without a cursor and where no line goes on in the next; what was
		// there before comes back at the end.
		fmt.Fprint(w, "\x1b[?1049h\x1b[?25l\x1b[?7l")
		defer fmt.Fprint(w, "\x1b[?7h\x1b[?25h\x1b[?1049l")
		before, after = "\x1b[H", "\x1b[J"
	}
	for {
		began := time.Now()
		wait, cancel := context.WithTimeout(ctx, redrawMost)
		e, err := sub.Next(wait)
		cancel()
		switch {
		case err == nil:
			v.event(e)
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		}
		var text strings.Builder
		width, height := size(w)
		text.WriteString(before)
		v.show(&text, sub, width, height)
		text.WriteString(after)
		if _, err := io.WriteString(w, text.String()); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		select {
		case <-time.After(redrawLeast - time.Since(began)):
		case <-ctx.Done():
			return nil
		}
	}
}

// show writes the table of what is watched.
func (v *view) show(w io.Writer, sub *client.Subscription, width, height int) {
	if v.stock != nil {
		v.drawStock(w, sub.Stock(), width, height)
		return
	}
	v.draw(w, sub.Set(), width, height)
}

// draw writes the table, within width and height where they are not 0.
func (v *view) draw(w io.Writer, set []dray.Driver, width, height int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	v.meter(now)
	var lines []string
	if v.once {
		lines = append(lines, fmt.Sprintf("%s %s", count(len(set), "driver"), v.what))
	} else {
		lines = append(lines,
			fmt.Sprintf("%s, %.0f positions/s, %d entered, %d left    %s", count(len(set), "driver"), v.rate, v.in, v.out, v.what),
			v.state)
	}
	id, most := 0, 0 // the longest id, and attributes
	for i := range set {
		if v.middle != nil {
			set[i].Distance = dray.Distance(*v.middle, set[i].Point())
		}
		id, most = max(id, len(set[i].Driver)), max(most, utf8.RuneCountInString(attributes(set[i].Attributes)))
	}
	slices.SortFunc(set, func(a, b dray.Driver) int {
		if v.byID {
			return byID(a, b)
		}
		return cmp.Or(cmp.Compare(a.Distance, b.Distance), byID(a, b))
	})
	rows := len(set)
	if height > 0 {
		rows = min(rows, max(0, height-5))
	}
	layout := fit(width, id, most, v.middle != nil)
	lines = append(lines, layout.head())
	for _, d := range set[:rows] {
		age := now.Add(-v.serverLag).Sub(d.ReceivedAt)
		lines = append(lines, layout.row(tableRow{d, max(0, age.Seconds())}))
	}
	if rows < len(set) {
		lines = append(lines, fmt.Sprintf("... and %d more", len(set)-rows))
	}
	writeLines(w, lines, width, height)
}

// meter takes the rate of changes once in a while.
func (v *view) meter(now time.Time) {
	if v.rated.IsZero() {
		v.rated = now
	} else if d := now.Sub(v.rated); d >= 2*time.Second {
		v.rate, v.moves, v.rated = float64(v.moves)/d.Seconds(), 0, now
	}
}

// writeLines writes lines, within width and height where they are not 0.
func writeLines(w io.Writer, lines []string, width, height int) {
	end := "\n"
	if height > 0 {
		end = "\x1b[K\n"
		lines = lines[:min(len(lines), max(1, height-1))]
	}
	for _, line := range lines {
		if width > 0 {
			line = cut(line, width)
		}
		fmt.Fprint(w, line, end)
	}
}

func known(format string, f float64) string {
	if f != f {
		return "-"
	}
	return fmt.Sprintf(format, f)
}

func attributes(m map[string]string) string {
	pairs := make([]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, printable(k)+"="+printable(v))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, " ")
}
