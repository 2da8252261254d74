package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"dray/httpapi"
	"dray/loadtest"
)

type loadtestCmd struct {
	Ingest ingestCmd `cmd:"" help:"Drivers that report: positions a second until stored, latency, CPU; and nothing acknowledged is lost."`
	Watch  lookCmd   `cmd:"" help:"Watchers of circles over a moving fleet: deliveries, latency, CPU; and every set is right."`
	Nearby nearbyCmd `cmd:"" help:"Questions for the nearest drivers: questions a second, latency, CPU; and the answers are right."`

	Reserve   loadReserveCmd `cmd:"" help:"Reservations of stock: a second, latency, CPU; and counters and ledger are what was acknowledged."`
	FlashSale saleCmd        `cmd:"" name:"flash-sale" help:"Buyers fight for one SKU until it is sold out: units a second; and exactly what there was is sold."`

	Server serverCmd `cmd:"" hidden:"" help:"dray serve with a CPU profile."`
	Naive  naiveCmd  `cmd:"" hidden:"" name:"naive-server" help:"The obvious server, to compare with."`
}

// loadFlags are what every scenario takes.
type loadFlags struct {
	URL      socketURL     `name:"url" help:"WebSocket of a running server to put load on, as ws://host:port/v1/ws." xor:"where" placeholder:"URL"`
	Start    bool          `help:"Start a server, and a private redis-server if there is one in PATH; they end with the test. This is so without --url." xor:"where"`
	Baseline []string      `help:"What to measure beside a server that was started: naive (the obvious server), redis (Redis alone), none." default:"naive,redis" placeholder:"NAME"`
	Duration time.Duration `help:"Time that is measured." default:"10s"`
	Warmup   time.Duration `help:"Time before it." default:"2s"`
	Seed     uint64        `help:"Makes the same fleet again." default:"1"`
	Check    int           `help:"Drivers, or answers, at most that the truth is looked up of." default:"5000"`
	JSON     bool          `name:"json" help:"One JSON object instead of a table."`
	Profile  string        `help:"Write CPU profiles (dray.pprof, naive.pprof, loadtest.pprof) into this directory." type:"path" placeholder:"DIR"`
	Server   string        `help:"Start this dray instead of the one that runs." type:"existingfile" placeholder:"FILE"`
}

func (c *loadFlags) validate(p interface{ Validate() error }) error {
	for _, name := range c.Baseline {
		if !slices.Contains([]string{"naive", "redis", "none"}, name) {
			return fmt.Errorf("--baseline is naive, redis or none, not %q", name)
		}
	}
	return p.Validate()
}

// plan is what c says of every scenario.
func (c *loadFlags) plan(a *app, drivers int, spread metres) loadtest.Plan {
	terminal := isTerminal(a.stderr)
	return loadtest.Plan{
		Seed: c.Seed, Warmup: c.Warmup, Duration: c.Duration, Check: c.Check, Drivers: drivers, Spread: float64(spread),
		Progress: func(line string, passing bool) {
			switch {
			case terminal:
				fmt.Fprintf(a.stderr, "\r\x1b[K%s", line)
			case !passing:
				fmt.Fprintln(a.stderr, line)
			}
		},
	}
}

// metres is a distance that may be written with its unit.
type metres float64

func (m *metres) UnmarshalText(text []byte) error {
	number, unit := strings.TrimSuffix(string(text), "m"), 1.0
	if n, ok := strings.CutSuffix(number, "k"); ok {
		number, unit = n, 1000
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !(f > 0 && f < 1e9) {
		return fmt.Errorf("%q is no distance like 800, 800m or 60km", text)
	}
	*m = metres(f * unit)
	return nil
}

type ingestCmd struct {
	loadFlags
	Connections int     `help:"WebSockets that report." default:"1000"`
	Mode        string  `help:"When a connection sends: after the answer to its last frame (answer), at once while its window has room (stream), or at a rate (rate)." enum:"answer,stream,rate" default:"answer"`
	Batch       int     `help:"Positions in a frame of mode answer." default:"1"`
	InFlight    int     `help:"Positions of a connection under way in mode answer; 0 is one frame." default:"0"`
	Window      int     `help:"Positions of a connection that wait for their ack in mode stream." default:"64"`
	Rate        float64 `help:"Positions a second of each connection in mode rate." default:"1"`
	Drivers     int     `help:"Size of the fleet; 0 is one driver a connection." default:"0"`
	Spread      metres  `help:"Side of the square that it keeps within." default:"60km"`
}

func (c *ingestCmd) settings(a *app) *loadtest.IngestPlan {
	drivers := c.Drivers
	if drivers == 0 {
		drivers = max(c.Connections, 1)
	}
	return &loadtest.IngestPlan{
		Plan: c.plan(a, drivers, c.Spread), Connections: c.Connections, Mode: c.Mode,
		Batch: c.Batch, InFlight: c.InFlight, Window: c.Window, Rate: c.Rate,
	}
}

// Validate checks what kong can't.
func (c *ingestCmd) Validate() error { return c.validate(c.settings(new(app))) }

// Help is shown by dray loadtest ingest --help.
func (*ingestCmd) Help() string {
	return `Examples:
  dray loadtest ingest                                      1000 connections, each waits for its answer
  dray loadtest ingest --mode stream                        1000 connections that do not wait
  dray loadtest ingest --mode rate --connections 5000       5000 connections, one position a second each
  dray loadtest ingest --batch 64 --connections 8 --in-flight 128 --drivers 4096

Latency is from sending to the answer or ack, which says that the position is stored. Acks come
at most every 250 ms, so in mode stream that is what it shows.`
}

// Run measures.
func (c *ingestCmd) Run(a *app) error {
	p := c.settings(a)
	what := fmt.Sprintf("%d connections, mode %s, %d drivers in %v km", p.Connections, p.Mode, p.Drivers, p.Spread/1000)
	switch p.Mode {
	case "answer":
		what += fmt.Sprintf(", %d positions a frame, %d frames under way", p.Batch, max(1, p.InFlight/p.Batch))
	case "stream":
		what += fmt.Sprintf(", window %d", p.Window)
	case "rate":
		what += fmt.Sprintf(", %v a second each", p.Rate)
	}
	return c.compare(a, "ingest", what, scenario{
		server: func(ctx context.Context, t loadtest.Target) (*loadtest.Result, error) {
			return loadtest.Ingest(ctx, t, p)
		},
		redis: func(ctx context.Context, t loadtest.Target) (*loadtest.Result, error) {
			return loadtest.RedisIngest(ctx, t, p)
		},
	})
}

type lookCmd struct {
	loadFlags
	Subscribers int           `help:"WebSockets that watch, one circle each." default:"500"`
	Radius      metres        `help:"Of each circle." default:"2000"`
	Interval    time.Duration `help:"Of the subscriptions; 0 sends at once." default:"0"`
	Drivers     int           `help:"Size of the fleet." default:"10000"`
	Updates     float64       `help:"Positions a second of the whole fleet." default:"10000"`
	Publishers  int           `help:"WebSockets that report." default:"10"`
	Frame       int           `help:"Positions in a frame of theirs." default:"10"`
	Spread      metres        `help:"Side of the square that the fleet keeps within." default:"60km"`
}

func (c *lookCmd) settings(a *app) *loadtest.WatchPlan {
	return &loadtest.WatchPlan{
		Plan: c.plan(a, c.Drivers, c.Spread), Subscribers: c.Subscribers, Radius: float64(c.Radius), Interval: c.Interval,
		Updates: c.Updates, Publishers: c.Publishers, Frame: c.Frame,
	}
}

// Validate checks what kong can't.
func (c *lookCmd) Validate() error { return c.validate(c.settings(new(app))) }

// Help is shown by dray loadtest watch --help.
func (*lookCmd) Help() string {
	return `Examples:
  dray loadtest watch
  dray loadtest watch --interval 50ms
  dray loadtest watch --updates 20000

A delivery is a position that a watcher hears of, as entered or moved; its latency is from when
that position was sent. Due are all pairs of a position and a watcher whose circle it is in;
with an interval the newest of a driver stands for those before it.`
}

// Run measures.
func (c *lookCmd) Run(a *app) error {
	p := c.settings(a)
	what := fmt.Sprintf("%d watchers of %v m over %d drivers in %v km, %v updates/s from %d connections in frames of %d, interval %v",
		p.Subscribers, p.Radius, p.Drivers, p.Spread/1000, p.Updates, p.Publishers, p.Frame, p.Interval)
	return c.compare(a, "watch", what, scenario{
		server: func(ctx context.Context, t loadtest.Target) (*loadtest.Result, error) {
			return loadtest.Watch(ctx, t, p)
		},
	})
}

type nearbyCmd struct {
	loadFlags
	Drivers     int    `help:"Size of the fleet, which stands still." default:"100000"`
	Spread      metres `help:"Side of the square that it stands in." default:"60km"`
	Radius      metres `help:"Of the questions." default:"1000"`
	Limit       int    `help:"Of the questions." default:"50"`
	Connections int    `help:"That ask." default:"32"`
	InFlight    int    `help:"Questions of a connection under way, over the WebSocket." default:"4"`
	HTTP        bool   `name:"http" help:"Ask over REST, a question at a time."`
}

func (c *nearbyCmd) settings(a *app) *loadtest.NearbyPlan {
	return &loadtest.NearbyPlan{
		Plan: c.plan(a, c.Drivers, c.Spread), Radius: float64(c.Radius), Limit: c.Limit,
		Connections: c.Connections, InFlight: c.InFlight, HTTP: c.HTTP,
	}
}

// Validate checks what kong can't.
func (c *nearbyCmd) Validate() error { return c.validate(c.settings(new(app))) }

// Help is shown by dray loadtest nearby --help.
func (*nearbyCmd) Help() string {
	return `Examples:
  dray loadtest nearby --radius 1km
  dray loadtest nearby --radius 5km --http
  dray loadtest nearby --drivers 1000000

A fleet on a running server (--url) stays live for its location TTL only: keep warm-up and
duration under that.`
}

// Run measures.
func (c *nearbyCmd) Run(a *app) error {
	p := c.settings(a)
	how := fmt.Sprintf("WebSockets with %d questions under way", p.InFlight)
	if p.HTTP {
		how = "HTTP connections"
	}
	what := fmt.Sprintf("nearest %d within %v m of %d drivers in %v km, %d %s", p.Limit, p.Radius, p.Drivers, p.Spread/1000, p.Connections, how)
	return c.compare(a, "nearby", what, scenario{
		still: true,
		server: func(ctx context.Context, t loadtest.Target) (*loadtest.Result, error) {
			return loadtest.Nearby(ctx, t, p)
		},
		redis: func(ctx context.Context, t loadtest.Target) (*loadtest.Result, error) {
			return loadtest.RedisNearby(ctx, t, p)
		},
	})
}

// A scenario is what to do with a server, and with Redis alone; nil where there is nothing.
type scenario struct {
	still         bool // its drivers report once
	unlike        bool // the naive server can't do it
	server, redis func(ctx context.Context, t loadtest.Target) (*loadtest.Result, error)
}

// compare runs s on the server and on the baselines, one after the other, and reports.
func (c *loadFlags) compare(a *app, name, settings string, s scenario) error {
	return profile(c.profile("loadtest"), func() error { return c.compareAll(a, name, settings, s) })
}

// profile is the file of a process's profile; "" where none is wanted.
func (c *loadFlags) profile(process string) string {
	if c.Profile == "" {
		return ""
	}
	return filepath.Join(c.Profile, process+".pprof")
}

func (c *loadFlags) compareAll(a *app, name, settings string, s scenario) error {
	var results []*loadtest.Result
	measure := func(start func() (loadtest.Target, func() error, error), run func(context.Context, loadtest.Target) (*loadtest.Result, error)) error {
		t, stop, err := start()
		if err != nil {
			return err
		}
		result, err := run(a.ctx, t)
		if err = errors.Join(err, stop()); err != nil {
			if t.Name != "dray" { // which begins every error of this program
				err = fmt.Errorf("%s: %w", t.Name, err)
			}
			return err
		}
		results = append(results, result)
		return nil
	}
	var err error
	if c.URL != "" {
		settings += ", " + string(c.URL)
		err = measure(func() (loadtest.Target, func() error, error) {
			return loadtest.Target{Name: "dray", URL: string(c.URL)}, func() error { return nil }, nil
		}, s.server)
	} else {
		err = measure(func() (loadtest.Target, func() error, error) { return c.startDray(a, s.still) }, s.server)
		for _, baseline := range c.Baseline {
			if _, missing := exec.LookPath("redis-server"); err != nil || missing != nil || baseline == "none" {
				break
			}
			switch {
			case baseline == "naive" && s.unlike:
			case baseline == "naive":
				err = measure(func() (loadtest.Target, func() error, error) { return c.startNaive(a) }, s.server)
			case s.redis != nil:
				err = measure(func() (loadtest.Target, func() error, error) { return startRedis(a.ctx) }, s.redis)
			}
		}
	}
	if isTerminal(a.stderr) {
		fmt.Fprint(a.stderr, "\r\x1b[K")
	}
	if a.ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	return c.report(a, loadtest.NewReport(name, settings, results))
}

// report prints, and fails when the server did not keep a promise. That a baseline does not
// is only told.
func (c *loadFlags) report(a *app, r *loadtest.Report) error {
	var err error
	if c.JSON {
		out := json.NewEncoder(a.stdout)
		out.SetIndent("", "  ")
		err = out.Encode(r)
	} else {
		err = r.WriteText(a.stdout)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if n := r.Results[0].Failed(); n > 0 {
		return fmt.Errorf("the server broke its promises: %d checks failed", n)
	}
	return nil
}

// startDray starts a server of this program, and a Redis for it where there is one.
func (c *loadFlags) startDray(a *app, still bool) (t loadtest.Target, stop func() error, err error) {
	t = loadtest.Target{Name: "dray"}
	args := []string{"serve"}
	if c.Profile != "" {
		args = []string{"loadtest", "server", "--cpu-profile", c.profile(t.Name)}
	}
	args = append(args, "--listen", "127.0.0.1:0", "--messages-per-second=-1", "--log-level", "warn")
	if still {
		args = append(args, "--location-ttl", (c.Warmup + c.Duration + 10*time.Minute).String())
	}
	redis, err := loadtest.StartRedis(a.ctx)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		fmt.Fprintln(a.stderr, "no redis-server in PATH: the server holds its data itself, which is for trying out and slow; no baselines")
	case err != nil:
		return t, nil, err
	default:
		t.Redis = redis.Address
		args = append(args, "--redis-url", "redis://"+redis.Address)
	}
	return c.startServer(a, t, redis, args)
}

// startNaive starts the naive server.
func (c *loadFlags) startNaive(a *app) (t loadtest.Target, stop func() error, err error) {
	redis, err := loadtest.StartRedis(a.ctx)
	if err != nil {
		return t, nil, err
	}
	t = loadtest.Target{Name: "naive", Redis: redis.Address, Tolerance: 1}
	args := []string{"loadtest", "naive-server", "--redis", redis.Address}
	if c.Profile != "" {
		args = append(args, "--cpu-profile", c.profile(t.Name))
	}
	return c.startServer(a, t, redis, args)
}

func (c *loadFlags) startServer(a *app, t loadtest.Target, redis *loadtest.RedisChild, args []string) (loadtest.Target, func() error, error) {
	stopRedis := func() error { return nil }
	if redis != nil {
		stopRedis = redis.Stop
	}
	path, err := os.Executable()
	if c.Server != "" && t.Name == "dray" {
		path = c.Server
	}
	var server *loadtest.ServerChild
	if err == nil {
		server, err = loadtest.StartServer(a.ctx, path, args...)
	}
	if err != nil {
		return t, nil, errors.Join(err, stopRedis())
	}
	t.URL = server.URL
	t.Processes = append(t.Processes, loadtest.Process{Name: "server", PID: server.PID()})
	if redis != nil {
		t.Processes = append(t.Processes, loadtest.Process{Name: "redis", PID: redis.PID()})
	}
	return t, func() error { return errors.Join(server.Stop(), stopRedis()) }, nil
}

func startRedis(ctx context.Context) (t loadtest.Target, stop func() error, err error) {
	redis, err := loadtest.StartRedis(ctx)
	if err != nil {
		return t, nil, err
	}
	return loadtest.Target{Name: "redis", Redis: redis.Address, Processes: []loadtest.Process{{Name: "redis", PID: redis.PID()}}}, redis.Stop, nil
}

// profile writes a CPU profile into a file while run runs; none where file is empty.
func profile(file string, run func() error) error {
	if file == "" {
		return run()
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = run()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

type serverCmd struct {
	CPUProfile string `name:"cpu-profile" help:"File to write." type:"path"`
	serveCmd
}

// Run serves until a signal comes.
func (c *serverCmd) Run(a *app) error {
	return profile(c.CPUProfile, func() error { return c.serveCmd.Run(a) })
}

type naiveCmd struct {
	Redis      string `help:"host:port of its Redis." required:""`
	Listen     string `help:"Address and port to listen on." default:"127.0.0.1:0"`
	CPUProfile string `name:"cpu-profile" help:"File to write." type:"path"`
}

// Run serves until a signal comes.
func (c *naiveCmd) Run(a *app) error {
	if err := httpapi.CheckListen(c.Listen); err != nil {
		return usageError{err}
	}
	listener, err := listen(a.ctx, c.Listen)
	if err != nil {
		return err
	}
	naive := loadtest.NewNaive(c.Redis)
	defer naive.Close()
	server := &http.Server{Handler: naive, ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintf(a.stdout, "the naive server listens on ws://%s/v1/ws\n", listener.Addr())
	return profile(c.CPUProfile, func() error {
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		select {
		case err := <-served:
			return err
		case <-a.ctx.Done():
		}
		err := server.Close() // WebSockets end with the process
		<-served
		return err
	})
}
