package client_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/client"
)

// What happens when is tested in bubbles of testing/synctest, whose clock moves only while
// everybody waits. A socket of the kernel would hold it up: here they are pipes.

// pipes is a listener whose connections are pipes.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if nc, ok := <-p; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return nil }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p <- far
	return near, nil
}

// piped is a fake for a bubble.
func piped(t *testing.T, scripts ...func(*peer)) *fake {
	p := make(pipes)
	f := &fake{t: t, url: "ws://server/v1/ws", scripts: scripts, welcome: welcome, patience: 24 * time.Hour}
	f.client = &http.Client{Transport: &http.Transport{DialContext: p.dial}}
	server := &http.Server{Handler: f}
	go server.Serve(p)
	t.Cleanup(func() { server.Close() })
	return f
}

// attempts has a client keep its own back-off, and notes when it tries to connect.
func attempts(into *[]time.Duration) func(*client.Config) {
	began := time.Now()
	return func(c *client.Config) {
		c.MinBackoff, c.MaxBackoff = 0, 0
		c.NewToken = func(context.Context) (string, error) {
			*into = append(*into, time.Since(began))
			return "", nil
		}
	}
}

// within tells whether d is from least to most.
func within(d, least, most time.Duration) bool { return d >= least && d <= most }

func TestReconnectsBackOffWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		const lived = 19 // the attempt that holds for longer than the longest back-off
		scripts := []func(*peer){
			0:     (*peer).drop,
			17:    (*peer).drop,
			lived: func(p *peer) { time.AfterFunc(time.Minute, p.drop); p.linger() },
			21:    (*peer).linger,
		} // the others are refused
		dial(t, piped(t, scripts...), attempts(&at))
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(at) != len(scripts) {
			t.Fatalf("%d attempts, want %d", len(at), len(scripts))
		}
		capped := map[time.Duration]bool{}
		for i := range len(at) - 1 {
			wait, failed := at[i+1]-at[i], i
			if i == lived {
				wait -= time.Minute
			}
			if i >= lived {
				failed -= lived
			}
			most := min(250*time.Millisecond<<failed, 15*time.Second)
			if !within(wait, most/2, most) {
				t.Errorf("attempt %d comes after %v, want %v to %v", i+1, wait, most/2, most)
			}
			if failed > 6 {
				capped[wait] = true
			}
		}
		if len(capped) < 5 {
			t.Errorf("at the bound the waits are %v, want chance in them", capped)
		}
	})
}

func TestGoodbyeSaysWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		var states []client.Status
		f := piped(t,
			func(p *peer) {
				p.say(`{"type":"goodbye","reason":"drain","retryAfterMs":7000}`)
				p.close(dray.CloseRestart, "drain")
			},
			(*peer).linger)
		dial(t, f, attempts(&at), func(c *client.Config) { c.OnStatus = func(s client.Status) { states = append(states, s) } })
		time.Sleep(time.Minute)
		synctest.Wait()
		const least = 7*time.Second + 125*time.Millisecond
		if len(at) != 2 || !within(at[1], least, least+125*time.Millisecond) {
			t.Errorf("attempts at %v, want one now and one in 7 s and a little", at)
		}
		if len(states) != 3 || states[1].Connected || states[1].RetryIn != at[1] || !states[2].Connected || states[2].Welcome.Limits.MaxRadius != 50_000 {
			t.Errorf("states are %+v, want connected, lost and connected", states)
		}
	})
}

func TestASilentServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		f := piped(t,
			func(p *peer) { p.mute = true; p.linger() },
			(*peer).linger) // says nothing either, but answers pings
		dial(t, f, attempts(&at))
		time.Sleep(time.Hour)
		synctest.Wait()
		// A ping after a heartbeat of 15 s, and another for its answer.
		if len(at) != 2 || !within(at[1], 30*time.Second, 31*time.Second) {
			t.Errorf("attempts at %v, want a second after 30 s and no third", at)
		}
	})
}

// A client keeps below what its server allows, after a burst of half a second.
func TestPositionsKeepToTheServersRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const positions = 300
		var heard []time.Duration
		f := piped(t, func(p *peer) {
			began := time.Now()
			for range positions {
				p.hear("position")
				heard = append(heard, time.Since(began))
			}
			p.say(`{"type":"ack","seq":300}`)
			p.linger()
		})
		f.welcome = strings.Replace(welcome, `"messagesPerSecond":0`, `"messagesPerSecond":100`, 1)
		c := dial(t, f)
		for i := range positions {
			if err := c.Report(t.Context(), at("d1", int64(i))); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		early := slices.IndexFunc(heard, func(d time.Duration) bool { return d > 0 })
		if early < 40 || early > 50 {
			t.Errorf("a burst of %d, want half a second's 50 at most", early)
		}
		for i, d := range heard {
			if most := time.Duration(i) * time.Second / 90; d < time.Duration(i-50)*time.Second/100 || d > most {
				t.Fatalf("position %d after %v, want 100 a second", i, d)
			}
		}
	})
}
