package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
)

// stockFlags are those of the commands that work on the Redis behind the servers.
type stockFlags struct {
	RedisURL  string   `name:"redis-url" help:"redis://[user[:password]@]host[:port][/db], or rediss:// for TLS; or set the REDIS_… variables." placeholder:"URL"`
	Locations []string `arg:"" optional:"" name:"location" help:"Locations of stock; all when none is named."`
}

// open gives the inventory, and the locations that are meant.
func (f *stockFlags) open(a *app) (s *inventory.Store, locations []string, stop func(), err error) {
	config, err := a.redisConfig(f.RedisURL)
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	if config.Mode() == redisconn.Embedded {
		return nil, nil, nil, usagef("no Redis is named: set --redis-url or one of the REDIS_… variables to that of the servers")
	}
	config.Logger = a.log
	client, err := redisconn.Open(a.ctx, config)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err = inventory.New(a.ctx, inventory.Config{Redis: client, AllowEviction: true, Logger: a.log})
	if err != nil {
		return nil, nil, nil, errors.Join(err, client.Close())
	}
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(s.Close(ctx), client.Close()); err != nil {
			a.log.Warn("not closed well", "error", err)
		}
	}
	if locations = f.Locations; len(locations) == 0 {
		if locations, err = s.Locations(a.ctx); err != nil {
			stop()
			return nil, nil, nil, err
		}
		slices.Sort(locations)
	}
	return s, locations, stop, nil
}

type auditCmd struct {
	stockFlags
	Repair bool `help:"Set counters that differ to what was computed, with an entry in the ledger."`
	JSON   bool `name:"json" help:"Print differences as JSON lines."`
}

// Help is shown by dray audit --help.
func (*auditCmd) Help() string {
	return `Units on hand are recomputed from the ledger, reserved ones from the reservations that are held,
and each entry of the ledger must go on where the one before it ended. The exit code is 1 when
anything differs and was not repaired. It may run while the stock changes.

    REDIS_URL=redis://127.0.0.1:6379/0 dray audit
    dray audit --redis-url redis://127.0.0.1:6379/0 --repair shop-7`
}

// Run audits each location.
func (c *auditCmd) Run(a *app) error {
	s, locations, stop, err := c.open(a)
	if err != nil {
		return err
	}
	defer stop()
	differ, left := 0, 0
	for _, location := range locations {
		found, err := s.Audit(a.ctx, location, c.Repair)
		if err != nil {
			return fmt.Errorf("audit %s: %w", location, err)
		}
		for _, d := range found {
			differ++
			if !d.Repaired {
				left++
			}
			if c.JSON {
				line, err := json.Marshal(d)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s\n", line)
			} else {
				fmt.Fprintln(a.stdout, d)
			}
		}
	}
	if !c.JSON {
		fmt.Fprintf(a.stdout, "%d locations, %d differences, %d repaired\n", len(locations), differ, differ-left)
	}
	if left > 0 {
		return fmt.Errorf("%d differences are left", left)
	}
	return nil
}

type archiveCmd struct {
	stockFlags
	Dir  string `help:"Directory for the files, one for each location: <location>.jsonl." default:"." placeholder:"DIR"`
	Once bool   `help:"End when what is there is written, instead of waiting for more."`
}

// Help is shown by dray archive --help.
func (*archiveCmd) Help() string {
	return `Each entry of the ledger becomes a JSON line, in order and once: after a restart it goes on
behind the last line of each file. Entries that the server cut before they were archived are told
as an error and left out.

    REDIS_URL=redis://127.0.0.1:6379/0 dray archive --dir ledger`
}

// Run copies the ledgers until a signal comes, or to their ends.
func (c *archiveCmd) Run(a *app) error {
	s, locations, stop, err := c.open(a)
	if err != nil {
		return err
	}
	defer stop()
	group, ctx := errgroup.WithContext(a.ctx)
	for _, location := range locations {
		if !dray.ValidID(location) {
			return usagef("%q is no location", location)
		}
		group.Go(func() error { return c.archive(ctx, a, s, location) })
	}
	err = group.Wait()
	if errors.Is(err, context.Canceled) && a.ctx.Err() != nil {
		return nil // that is how it ends
	}
	return err
}

func (c *archiveCmd) archive(ctx context.Context, a *app, s *inventory.Store, location string) error {
	file, err := os.OpenFile(filepath.Join(c.Dir, location+".jsonl"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	last, err := lastEntry(file)
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	follow := s.Follow
	if c.Once {
		follow = s.Entries
	}
	for {
		err := follow(ctx, location, last, func(e dray.LedgerEntry) error {
			if _, err := file.Write(append(e.AppendJSON(nil), '\n')); err != nil {
				return err
			}
			last = e.Entry
			return nil
		})
		if cut, ok := errors.AsType[*inventory.CutError](err); ok {
			a.log.Error("entries are lost", "location", cut.Location, "from", cut.From, "to", cut.To)
			last = cut.To
			continue
		}
		return errors.Join(err, file.Sync())
	}
}

// lastEntry is the number of the last whole line, behind which file is then written; 0 where there is none.
func lastEntry(file *os.File) (last int64, err error) {
	var whole int64 // bytes
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF { // half a line was written when the program ended
			break
		}
		if err != nil {
			return 0, err
		}
		var e dray.LedgerEntry
		if err := e.UnmarshalJSON(line); err != nil {
			return 0, fmt.Errorf("byte %d begins no entry: %w", whole, err)
		}
		whole, last = whole+int64(len(line)), e.Entry
	}
	if err := file.Truncate(whole); err != nil {
		return 0, err
	}
	_, err = file.Seek(whole, io.SeekStart)
	return last, err
}
