package loadtest

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/HdrHistogram/hdrhistogram-go"

	"dray"
)

// A Report is what one command measured: the server, and what it is compared with.
type Report struct {
	Scenario string    `json:"scenario"`
	Settings string    `json:"settings"`
	Machine  string    `json:"machine"`
	Results  []*Result `json:"results"` // the first is the server's
	Ratios   []Ratio   `json:"ratios,omitempty"`
}

// A Result is one scenario on one target.
type Result struct {
	Scenario   string   `json:"scenario"`
	Target     string   `json:"target"`
	Operation  string   `json:"operation"` // what is counted
	Seconds    float64  `json:"seconds"`   // of the window
	Operations int64    `json:"operations"`
	Rate       float64  `json:"perSecond"`
	Latency    *Latency `json:"latency,omitempty"`
	CPU        []CPU    `json:"cpu"`

	Positions  *PositionCounts `json:"positions,omitempty"`
	Deliveries *DeliveryCounts `json:"deliveries,omitempty"`
	Missed     int64           `json:"missed,omitempty"` // sendings that came to nothing, for the window was full

	RedisCommands map[string]int64 `json:"redisCommands,omitempty"` // in the window; nil where not known
	Checks        []*Check         `json:"checks"`
}

// Latency is milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50Ms"`
	P90   float64 `json:"p90Ms"`
	P99   float64 `json:"p99Ms"`
	Max   float64 `json:"maxMs"`
}

func latencyOf(h *hdrhistogram.Histogram) *Latency {
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return &Latency{h.TotalCount(), ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(90)), ms(h.ValueAtQuantile(99)), ms(h.Max())}
}

// CPU is what a process used in the window.
type CPU struct {
	Process string   `json:"process"`
	Seconds *float64 `json:"seconds"`            // nil where not known
	Cores   *float64 `json:"cores"`              // of all that there are
	Micros  *float64 `json:"microsPerOperation"` // set when the operations are counted
}

// PositionCounts is what became of all positions of a run.
type PositionCounts struct {
	Accepted   int64               `json:"accepted"`
	Superseded int64               `json:"superseded"`
	Refused    int64               `json:"refused"`
	Codes      map[dray.Code]int64 `json:"codes,omitempty"` // of the refused
}

// DeliveryCounts is what watchers were owed and got, of the positions sent in the window.
type DeliveryCounts struct {
	Updates   int64   `json:"updates"`      // positions sent
	Due       int64   `json:"due"`          // pairs of a position and a watcher whose circle holds it
	Delivered int64   `json:"delivered"`    // entries that told one of them
	Entered   int64   `json:"entered"`      // of those
	Left      int64   `json:"left"`         // entries of leaves, in the whole run
	Frames    int64   `json:"frames"`       // that came, in the whole run
	Bytes     int64   `json:"bytes"`        // of those
	Strangers int64   `json:"strangers"`    // entries of drivers that are not of this run
	PerDue    float64 `json:"microsPerDue"` // CPU of server and Redis; 0 where not known
}

// A Check is one promise that was looked at.
type Check struct {
	What     string   `json:"what"`
	Checked  int64    `json:"checked"`
	Failed   int64    `json:"failed"`
	Examples []string `json:"examples,omitempty"` // of what failed, a few

	mu sync.Mutex // guards Failed and Examples while the run goes on
}

const maxExamples = 5

func (r *Result) check(what string, checked int64) *Check {
	c := &Check{What: what, Checked: checked}
	r.Checks = append(r.Checks, c)
	return c
}

// fail counts n failures; none where n is 0.
func (c *Check) fail(n int64, format string, args ...any) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Failed += n
	if len(c.Examples) < maxExamples {
		c.Examples = append(c.Examples, fmt.Sprintf(format, args...))
	}
}

// Failed is how often checks of r failed.
func (r *Result) Failed() (n int64) {
	for _, c := range r.Checks {
		n += c.Failed
	}
	return n
}

// used fills in the CPU between two looks.
func (r *Result) used(before, after []usage) {
	for i := range after {
		c := CPU{Process: after[i].process}
		if before[i].known && after[i].known {
			seconds := (after[i].time - before[i].time).Seconds()
			cores := seconds / r.Seconds
			c.Seconds, c.Cores = &seconds, &cores
		}
		r.CPU = append(r.CPU, c)
	}
}

// perOperation divides the CPU by the operations.
func (r *Result) perOperation() {
	for i := range r.CPU {
		if c := &r.CPU[i]; c.Seconds != nil && r.Operations > 0 {
			micros := *c.Seconds * 1e6 / float64(r.Operations)
			c.Micros = &micros
		}
	}
}

// Serving is the CPU of server and Redis for an operation, microseconds; false where it is
// not known.
func (r *Result) Serving() (micros float64, known bool) {
	for _, c := range r.CPU {
		if c.Process == self {
			continue
		}
		if c.Micros == nil {
			return 0, false
		}
		micros, known = micros+*c.Micros, true
	}
	return micros, known
}

// A Ratio is the server's figure divided by a baseline's. 0 is not known.
type Ratio struct {
	Against string  `json:"against"`
	Rate    float64 `json:"rate"` // over 1: more a second
	CPU     float64 `json:"cpu"`  // below 1: server and Redis use less for an operation
	P50     float64 `json:"p50"`  // below 1: sooner
	P99     float64 `json:"p99"`
}

// NewReport puts results together, the server's first.
func NewReport(scenario, settings string, results []*Result) *Report {
	r := &Report{Scenario: scenario, Settings: settings, Results: results,
		Machine: fmt.Sprintf("%d CPUs, %s, %s/%s", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)}
	over := func(a, b float64) float64 {
		if b == 0 {
			return 0
		}
		return a / b
	}
	for _, x := range results[1:] {
		ratio := Ratio{Against: x.Target, Rate: over(results[0].Rate, x.Rate)}
		ours, known := results[0].Serving()
		if theirs, ok := x.Serving(); ok && known {
			ratio.CPU = over(ours, theirs)
		}
		if a, b := results[0].Latency, x.Latency; a != nil && b != nil && x.cpu("server") != "-" { // Redis alone works on batches of another size
			ratio.P50, ratio.P99 = over(a.P50, b.P50), over(a.P99, b.P99)
		}
		r.Ratios = append(r.Ratios, ratio)
	}
	return r
}

// WriteText writes r for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n%s; CPU in microseconds an operation\n\n", r.Scenario, r.Settings, r.Machine)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t%s/s\tp50 ms\tp90\tp99\tmax\tserver\tredis\tloadtest\tcores\tchecks\t\n", r.Results[0].Operation)
	for _, x := range r.Results {
		fmt.Fprintf(t, "%s\t%s\t", x.Target, thousands(x.Rate))
		if l := x.Latency; l != nil {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t", short(l.P50), short(l.P90), short(l.P99), short(l.Max))
		} else {
			fmt.Fprint(t, "-\t-\t-\t-\t")
		}
		verdict := "all hold"
		if n := x.Failed(); n > 0 {
			verdict = fmt.Sprintf("%d FAILED", n)
		} else if len(x.Checks) == 0 {
			verdict = "none"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t\n", x.cpu("server"), x.cpu("redis"), x.cpu(self), x.cores(), verdict)
	}
	t.Flush()
	for _, x := range r.Ratios {
		fmt.Fprintf(&b, "\n%s against %s: %s", r.Results[0].Target, x.Against, strings.Join(slices.DeleteFunc([]string{
			times(x.Rate, "the rate"), times(x.CPU, "the CPU of server and Redis"), times(x.P50, "the p50"), times(x.P99, "the p99"),
		}, func(s string) bool { return s == "" }), ", "))
	}
	if len(r.Ratios) > 0 {
		b.WriteString("\n")
	}
	for _, x := range r.Results {
		x.tell(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// tell writes counts and checks.
func (r *Result) tell(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", r.Target)
	if p := r.Positions; p != nil {
		fmt.Fprintf(w, "  positions: %d accepted, %d superseded, %d refused%s\n", p.Accepted, p.Superseded, p.Refused, list(p.Codes))
	}
	if r.Missed > 0 {
		fmt.Fprintf(w, "  missed: %d positions were not sent when due, as the server was behind\n", r.Missed)
	}
	if d := r.Deliveries; d != nil {
		fmt.Fprintf(w, "  deliveries of %d updates: %d due, %d made (%.1f%%), %d of them entered; %s us of server and Redis for each due\n",
			d.Updates, d.Due, d.Delivered, 100*float64(d.Delivered)/float64(max(d.Due, 1)), d.Entered, short(d.PerDue))
		fmt.Fprintf(w, "  frames in the whole run: %d of %.0f bytes; %d leaves; %d entries of drivers not ours\n",
			d.Frames, float64(d.Bytes)/float64(max(d.Frames, 1)), d.Left, d.Strangers)
	}
	if r.RedisCommands != nil {
		fmt.Fprintf(w, "  Redis commands in the window: %s\n", cmp.Or(strings.TrimSpace(list(r.RedisCommands)), "none"))
	}
	for _, c := range r.Checks {
		verdict := "ok    "
		if c.Failed > 0 {
			verdict = "FAILED"
		}
		fmt.Fprintf(w, "  %s %s (%d checked, %d failed)\n", verdict, c.What, c.Checked, c.Failed)
		for _, e := range c.Examples {
			fmt.Fprintf(w, "         %s\n", e)
		}
	}
}

// cpu is the microseconds of one process as text; "-" where r has none of that name.
func (r *Result) cpu(process string) string {
	for _, c := range r.CPU {
		if c.Process == process {
			if c.Micros == nil {
				return "not known"
			}
			return short(*c.Micros)
		}
	}
	if process == "server" && len(r.CPU) == 1 {
		return "not known"
	}
	return "-"
}

// cores is what each process used of the machine.
func (r *Result) cores() string {
	var parts []string
	for _, c := range r.CPU {
		if c.Cores == nil {
			return "not known"
		}
		parts = append(parts, fmt.Sprintf("%.2f", *c.Cores))
	}
	return strings.Join(parts, "+")
}

func times(ratio float64, of string) string {
	if ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f x %s", ratio, of)
}

// list is counts by name, the largest first.
func list[K ~string](counts map[K]int64) string {
	names := make([]K, 0, len(counts))
	for k := range counts {
		names = append(names, k)
	}
	slices.SortFunc(names, func(a, b K) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	var b strings.Builder
	for i, k := range names {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %d %s", counts[k], k)
	}
	if b.Len() == 0 {
		return ""
	}
	return " (" + strings.TrimSpace(b.String()) + ")"
}

// short is f with three digits that matter.
func short(f float64) string {
	switch a := math.Abs(f); {
	case a >= 100:
		return fmt.Sprintf("%.0f", f)
	case a >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// thousands is a rate with commas.
func thousands(f float64) string {
	text := fmt.Sprintf("%.0f", f)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
