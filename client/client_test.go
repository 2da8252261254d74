package client_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/client"
)

func sortStrings(s []string) { slices.Sort(s) }

func TestDialGivesTheServersRefusal(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		body   string
		want   error
	}{
		{"a problem document is the error it names", 401, `{"type":"about:blank","code":"unauthenticated","detail":"token is not valid"}`, dray.ErrUnauthenticated},
		{"a bare 403 is forbidden", 403, "no", dray.ErrForbidden},
		{"a bare 503 is unavailable", 503, "", dray.ErrUnavailable},
		{"a page that is no WebSocket is a bad request", 200, "<html>", dray.ErrBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			defer server.Close()
			_, err := client.Dial(t.Context(), client.Config{URL: server.URL, Logger: quiet()})
			if !errors.Is(err, test.want) {
				t.Errorf("Dial() = %v, want %v", err, test.want)
			}
		})
	}
}

func TestDialOfAClosedPortSaysSo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	server.Close()
	_, err := client.Dial(t.Context(), client.Config{URL: "ws" + strings.TrimPrefix(server.URL, "http"), Logger: quiet()})
	if err == nil || strings.Contains(err.Error(), "http:") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Dial() of a closed port = %v, want a plain refusal", err)
	}
}

func TestPositionsAreStreamedAndAcknowledged(t *testing.T) {
	var heard []string
	f := newFake(t, func(p *peer) {
		for range 3 {
			m := p.hear("position")
			heard = append(heard, fmt.Sprintf("%d %s %v", m.Seq, m.Driver, m.Attributes))
		}
		p.say(`{"type":"error","seq":2,"code":"invalid_position","message":"invalid position","retryable":false,"details":[{"field":"timestamp","message":"too far ahead"}]}`)
		p.say(`{"type":"ack","seq":3}`)
		p.linger()
	})
	var refused []client.Refusal
	c := dial(t, f, func(c *client.Config) {
		c.Refused = func(r client.Refusal) { refused = append(refused, r) }
	})
	free := map[string]string{"status": "free"}
	first := at("d1", 1)
	first.Attributes = free
	for _, p := range []dray.Position{first, at("d2", 2), at("d1", 3)} {
		if err := c.Report(t.Context(), p); err != nil {
			t.Fatalf("Report() = %v", err)
		}
	}
	if err := c.Flush(testContext(t)); err != nil {
		t.Fatalf("Flush() = %v", err)
	}
	want := []string{"1 d1 map[status:free]", "2 d2 map[]", "3 d1 map[]"}
	if !slices.Equal(heard, want) {
		t.Errorf("the server heard %q, want %q: attributes once while they do not change", heard, want)
	}
	if len(refused) != 1 || refused[0].Position.Driver != "d2" || !errors.Is(refused[0].Err, dray.ErrInvalidPosition) ||
		refused[0].Err.Details[0].Field != "timestamp" {
		t.Errorf("Refused was told %v, want d2 with invalid_position and its field", refused)
	}
}

func TestUnacknowledgedPositionsAreSentAgain(t *testing.T) {
	heard := make(chan message, 10)
	f := newFake(t,
		func(p *peer) {
			for range 5 {
				p.hear("position")
			}
			p.say(`{"type":"error","seq":4,"code":"invalid_position","message":"invalid position"}`)
			p.say(`{"type":"ack","seq":2}`)
			p.close(dray.CloseRestart, "drain")
		},
		func(p *peer) {
			for range 2 {
				heard <- p.hear("position")
			}
			p.say(`{"type":"ack","seq":5}`)
			p.linger()
		})
	refused := 0
	c := dial(t, f, func(c *client.Config) { c.Refused = func(client.Refusal) { refused++ } })
	first := at("d1", 1)
	first.Attributes = map[string]string{"status": "free"}
	for _, p := range []dray.Position{first, at("d2", 2), at("d1", 3), at("d2", 4), at("d1", 5)} {
		if err := c.Report(t.Context(), p); err != nil {
			t.Fatalf("Report() = %v", err)
		}
	}
	if err := c.Flush(testContext(t)); err != nil {
		t.Fatalf("Flush() = %v", err)
	}
	third, fifth := <-heard, <-heard
	if third.Timestamp != 3 || fifth.Timestamp != 5 {
		t.Errorf("the second connection heard %v and %v, want positions 3 and 5", third, fifth)
	}
	if third.Attributes["status"] != "free" || fifth.Attributes != nil {
		t.Errorf("attributes are %v, then %v, want those of the lost connection told again, once", third.Attributes, fifth.Attributes)
	}
	if refused != 1 {
		t.Errorf("Refused was told %d times, want 1", refused)
	}
}

func TestReportWaitsAtTheBoundOfTheWindow(t *testing.T) {
	ack := make(chan struct{})
	f := newFake(t, func(p *peer) {
		p.hear("position")
		p.hear("position")
		<-ack
		p.say(`{"type":"ack","seq":1}`)
		p.hear("position")
		p.say(`{"type":"ack","seq":3}`)
		p.linger()
	})
	c := dial(t, f, func(c *client.Config) { c.Window = 2 })
	for i := range int64(2) {
		if err := c.Report(t.Context(), at("d1", i)); err != nil {
			t.Fatalf("Report() = %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Report(ctx, at("d1", 3)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Report() over the window = %v, want %v", err, context.DeadlineExceeded)
	}
	close(ack)
	if err := c.Report(testContext(t), at("d1", 4)); err != nil {
		t.Errorf("Report() after an ack = %v", err)
	}
	if err := c.Flush(testContext(t)); err != nil {
		t.Errorf("Flush() = %v", err)
	}
}

func TestWhatIsWrongIsSeenBeforeItIsSent(t *testing.T) {
	c := dial(t, newFake(t, (*peer).linger))
	nan := at("d1", 1)
	nan.Latitude = math.NaN()
	for _, test := range []struct {
		name string
		err  error
		want error
	}{
		{"a latitude that is not finite", c.Report(t.Context(), nan), dray.ErrInvalidPosition},
		{"an id with a space", c.Report(t.Context(), at("d 1", 1)), dray.ErrBadRequest},
		{"a subscription without a shape", second(c.Subscribe(t.Context(), dray.Shape{}, nil, 0)), dray.ErrBadRequest},
		{"1001 positions", second(c.ReportBatch(t.Context(), make([]dray.Position, 1001))), dray.ErrTooLarge},
		{"a question about no place", second(c.Nearby(t.Context(), dray.Circle{Radius: -1}, 0, nil)), dray.ErrBadRequest},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s = %v, want %v", test.name, test.err, test.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestABatchSaysWhatBecameOfEach(t *testing.T) {
	f := newFake(t, func(p *peer) {
		m := p.hear("positions")
		if len(m.Positions) != 2 || m.Positions[0].Driver != "d1" || m.Positions[1].Driver != "d3" {
			p.t.Errorf("the batch holds %v, want d1 and d3", m.Positions)
		}
		p.say(`{"type":"ok","id":%s,"accepted":1,"superseded":0,"rejected":[{"index":1,"code":"forbidden","message":"not yours"}]}`, m.ID)
		p.linger()
	})
	c := dial(t, f)
	result, err := c.ReportBatch(testContext(t), []dray.Position{at("d1", 1), at("d 2", 1), at("d3", 1)})
	if err != nil || result.Accepted != 1 || len(result.Rejected) != 2 {
		t.Fatalf("ReportBatch() = %v, %v, want 1 accepted and 2 rejected", result, err)
	}
	if r := result.Rejected; r[0].Index != 1 || !errors.Is(r[0].Err, dray.ErrBadRequest) || r[1].Index != 2 || !errors.Is(r[1].Err, dray.ErrForbidden) {
		t.Errorf("rejected are %v, want 1 as bad_request and 2 as forbidden", r)
	}
}

func TestAMessageOverTheServersLimitIsNotSent(t *testing.T) {
	c := dial(t, newFake(t, (*peer).linger))
	big := make([]dray.Position, 1000)
	for i := range big {
		big[i] = at(fmt.Sprintf("d%d", i), 1)
		big[i].Attributes = map[string]string{"note": strings.Repeat("x", 256)}
	}
	if _, err := c.ReportBatch(t.Context(), big); !errors.Is(err, dray.ErrTooLarge) {
		t.Errorf("ReportBatch() = %v, want %v", err, dray.ErrTooLarge)
	}
}

func TestEveryCodeComesBackAsItsError(t *testing.T) {
	codes := dray.Codes()
	f := newFake(t, func(p *peer) {
		for _, code := range codes {
			m := p.hear("nearby")
			p.say(`{"type":"error","id":%s,"code":%q,"message":"words","retryable":false,"retryAfterMs":250,"details":[{"field":"radius","message":"too far"}]}`, m.ID, code)
		}
		p.linger()
	})
	c := dial(t, f)
	for _, code := range codes {
		_, err := c.Nearby(testContext(t), dray.Circle{Radius: 10}, 0, nil)
		e, ok := errors.AsType[*dray.Error](err)
		if !ok || e.Code != code || e.RetryAfter != 250*time.Millisecond || e.Details[0].Field != "radius" {
			t.Errorf("Nearby() = %#v, want code %s with its details", err, code)
		}
	}
}

func TestAQuestionIsAskedAgainAfterAReconnect(t *testing.T) {
	f := newFake(t,
		func(p *peer) { p.hear("nearby"); p.drop() },
		func(p *peer) {
			m := p.hear("nearby")
			if m.Limit != 3 || m.Filter["status"][0] != "free" {
				p.t.Errorf("asked again with %v", m)
			}
			p.say(`{"type":"result","id":%s,"drivers":[%s]}`, m.ID, strings.Replace(driver("d1", 5), "}", `,"distance":12.5}`, 1))
			p.linger()
		})
	c := dial(t, f)
	got, err := c.Nearby(testContext(t), dray.Circle{Latitude: 30.25, Longitude: -97.75, Radius: 100}, 3, dray.Filter{"status": {"free"}})
	if err != nil || len(got) != 1 || got[0].Driver != "d1" || got[0].Distance != 12.5 {
		t.Errorf("Nearby() = %v, %v, want d1 at 12.5 m", got, err)
	}
}

func TestOfflineComesAfterThePositionsBeforeIt(t *testing.T) {
	f := newFake(t, func(p *peer) {
		for range 100 {
			p.hear("position")
		}
		m := p.hear("offline")
		p.say(`{"type":"ok","id":%s}`, m.ID)
		p.linger()
	})
	c := dial(t, f)
	for i := range int64(100) {
		if err := c.Report(t.Context(), at("d1", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Offline(testContext(t), "d1"); err != nil {
		t.Errorf("Offline() = %v", err)
	}
}

func TestASubscriptionIsTakenOutAgain(t *testing.T) {
	seen := make(chan struct{})
	f := newFake(t,
		func(p *peer) {
			m := p.hear("subscribe")
			if m.IntervalMs != 500 || m.Nearby == nil || m.Filter["status"][0] != "free" {
				p.t.Errorf("subscribed with %v", m)
			}
			p.say(`{"type":"snapshot","id":%s,"version":1,"serverTime":5,"drivers":[%s,%s]}`, m.ID, driver("d1", 1), driver("d2", 1))
			p.say(`{"type":"delta","id":%s,"version":2,"serverTime":6,"moved":[%s],"left":[{"driver":"d2","reason":"stale"}]}`, m.ID, driver("d1", 2))
			<-seen
			p.drop()
		},
		func(p *peer) {
			p.hear("subscribe")
			p.drop()
		},
		func(p *peer) {
			m := p.hear("subscribe")
			p.say(`{"type":"snapshot","id":%s,"version":1,"serverTime":7,"drivers":[%s]}`, m.ID, driver("d3", 9))
			p.linger()
		})
	c := dial(t, f, strict(t))
	sub, err := c.Subscribe(testContext(t), dray.Shape{Nearby: &dray.Circle{Radius: 100}}, dray.Filter{"status": {"free"}}, 500*time.Millisecond)
	if err != nil {
		t.Fatalf("Subscribe() = %v", err)
	}
	// The delta may have been merged into the snapshot already.
	got := show(next(t, sub))
	if got == "snapshot +d1@1 +d2@1" {
		got = "snapshot +d1@2 then " + show(next(t, sub))
		if got != "snapshot +d1@2 then ~d1@2 -d2:stale" {
			t.Errorf("events = %q", got)
		}
	} else if got != "snapshot +d1@2" {
		t.Errorf("event = %q, want the snapshot with the delta in it", got)
	}
	close(seen)
	if got := show(next(t, sub)); got != "snapshot +d3@9" {
		t.Errorf("event after the reconnect = %q, want the new snapshot", got)
	}
	if set := sub.Set(); len(set) != 1 || set[0].Driver != "d3" {
		t.Errorf("Set() = %v, want d3", set)
	}
}

func strict(t *testing.T) func(*client.Config) {
	return func(c *client.Config) {
		c.Strict = true
		c.OnViolation = func(err error) { t.Errorf("violation: %v", err) }
	}
}

func TestASlowConsumerGetsOneMergedEvent(t *testing.T) {
	taken, sent := make(chan struct{}), make(chan struct{})
	f := newFake(t, func(p *peer) {
		m := p.hear("subscribe")
		p.say(`{"type":"snapshot","id":%s,"version":1,"serverTime":1,"drivers":[%s,%s,%s]}`, m.ID, driver("stays", 1), driver("goes", 1), driver("returns", 1))
		<-taken
		version := 1
		delta := func(rest string) {
			version++
			p.say(`{"type":"delta","id":%s,"version":%d,"serverTime":%d,%s}`, m.ID, version, version, rest)
		}
		for i := range int64(1000) {
			delta(`"moved":[` + driver("stays", i+2) + `]`)
		}
		delta(`"entered":[` + driver("flash", 5) + `,` + driver("comes", 5) + `],"left":[{"driver":"goes","reason":"moved"},{"driver":"returns","reason":"filter"}]`)
		delta(`"entered":[` + driver("returns", 6) + `],"left":[{"driver":"flash","reason":"offline"}]`)
		delta(`"moved":[` + driver("comes", 7) + `]`)
		n := p.hear("nearby")
		p.say(`{"type":"result","id":%s,"drivers":[]}`, n.ID)
		close(sent)
		p.linger()
	})
	c := dial(t, f, strict(t))
	sub, err := c.Subscribe(testContext(t), dray.Shape{Drivers: []string{"a"}}, nil, 0)
	if err != nil {
		t.Fatalf("Subscribe() = %v", err)
	}
	if got := show(next(t, sub)); got != "snapshot +goes@1 +returns@1 +stays@1" {
		t.Fatalf("first event = %q", got)
	}
	close(taken)
	if _, err := c.Nearby(testContext(t), dray.Circle{Radius: 1}, 0, nil); err != nil { // comes after all deltas
		t.Fatal(err)
	}
	<-sent
	e := next(t, sub)
	if got := show(e); got != "+comes@7 ~returns@6 ~stays@1001 -goes:moved" {
		t.Errorf("merged event = %q", got)
	}
	if e.Frames != 1003 || e.Version != 1004 {
		t.Errorf("merged event is of %d frames up to version %d, want 1003 and 1004", e.Frames, e.Version)
	}
}

func TestViolationsAreTold(t *testing.T) {
	f := newFake(t, func(p *peer) {
		m := p.hear("subscribe")
		p.say(`{"type":"snapshot","id":%s,"version":5,"serverTime":1,"drivers":[%s]}`, m.ID, driver("a", 10))
		for _, rest := range []string{
			`"version":6,"moved":[` + driver("b", 1) + `]`,
			`"version":7,"left":[{"driver":"c","reason":"stale"}]`,
			`"version":8,"entered":[` + driver("a", 11) + `]`,
			`"version":9,"moved":[` + driver("a", 10) + `]`,
			`"version":9,"moved":[` + driver("a", 12) + `]`,
			`"version":10,"moved":[` + driver("a", 13) + `],"left":[{"driver":"a","reason":"stale"}]`,
			`"version":11`,
		} {
			p.say(`{"type":"delta","id":%s,"serverTime":1,%s}`, m.ID, rest)
		}
		p.linger()
	})
	told := make(chan string, 20)
	c := dial(t, f, func(c *client.Config) {
		c.Strict = true
		c.OnViolation = func(err error) { told <- err.Error() }
	})
	if _, err := c.Subscribe(testContext(t), dray.Shape{Drivers: []string{"a"}}, nil, 0); err != nil {
		t.Fatalf("Subscribe() = %v", err)
	}
	for _, want := range []string{
		"b moved, which is not in the set",
		"c left, which is not in the set",
		"a entered, which is in the set",
		"a is of 10, after one of 11",
		"version did not grow from 9",
		"a stands in it twice",
		"is empty",
	} {
		if got := <-told; !strings.HasSuffix(got, want) {
			t.Errorf("violation = %q, want %q", got, want)
		}
	}
}

func TestAnUpdateKeepsOrChangesTheShape(t *testing.T) {
	resumed := make(chan message, 1)
	f := newFake(t,
		func(p *peer) {
			m := p.hear("subscribe")
			p.say(`{"type":"snapshot","id":%s,"version":1,"serverTime":1,"drivers":[]}`, m.ID)
			m = p.hear("update")
			p.say(`{"type":"snapshot","id":%s,"version":2,"serverTime":1,"drivers":[]}`, m.ID) // no answer to the update
			p.say(`{"type":"error","id":%s,"code":"too_large","message":"too large","retryable":false,"details":[{"field":"radius","message":"over 50 km"}]}`, m.ID)
			m = p.hear("update")
			if m.Nearby != nil || m.Filter == nil || len(m.Filter) != 0 {
				p.t.Errorf("update of the filter alone = %v", m)
			}
			p.drop() // the answer is lost: it is asked again
		},
		func(p *peer) {
			m := p.hear("subscribe")
			resumed <- m
			p.say(`{"type":"snapshot","id":%s,"version":1,"serverTime":1,"drivers":[]}`, m.ID)
			m = p.hear("update")
			p.say(`{"type":"ok","id":%s}`, m.ID)
			p.say(`{"type":"delta","id":%s,"version":2,"serverTime":1,"entered":[%s]}`, m.ID, driver("d1", 1))
			m = p.hear("unsubscribe")
			p.say(`{"type":"ok","id":%s}`, m.ID)
			p.linger()
		})
	c := dial(t, f)
	ctx := testContext(t)
	sub, err := c.Subscribe(ctx, dray.Shape{Nearby: &dray.Circle{Radius: 100}}, dray.Filter{"a": {"b"}}, 0)
	if err != nil {
		t.Fatalf("Subscribe() = %v", err)
	}
	if err := sub.Update(ctx, &dray.Shape{Nearby: &dray.Circle{Radius: 60_000}}, nil); !errors.Is(err, dray.ErrTooLarge) {
		t.Errorf("Update() = %v, want %v", err, dray.ErrTooLarge)
	}
	if err := sub.Update(ctx, nil, &dray.Filter{}); err != nil {
		t.Errorf("Update() = %v", err)
	}
	if m := <-resumed; m.Nearby.Radius != 100 || m.Filter["a"] == nil {
		t.Errorf("taken out again with %v, want the shape and filter that held", m)
	}
	for e := next(t, sub); len(e.Entered) == 0; {
		e = next(t, sub)
	}
	if err := sub.Close(ctx); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if _, err := sub.Next(ctx); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Next() after Close = %v, want %v", err, client.ErrClosed)
	}
}

func TestARefusedSubscriptionIsAnError(t *testing.T) {
	f := newFake(t, func(p *peer) {
		m := p.hear("subscribe")
		p.say(`{"type":"error","id":%s,"code":"too_many_subscriptions","message":"too many","retryable":false}`, m.ID)
		p.linger()
	})
	c := dial(t, f)
	if _, err := c.Subscribe(testContext(t), dray.Shape{Drivers: []string{"a"}}, nil, 0); !errors.Is(err, dray.ErrTooManySubscriptions) {
		t.Errorf("Subscribe() = %v, want %v", err, dray.ErrTooManySubscriptions)
	}
}

func TestCloseNumbersThatEndTheClient(t *testing.T) {
	for number, want := range map[int]error{
		dray.ClosePolicy:   dray.ErrForbidden,
		dray.CloseRevoked:  dray.ErrUnauthenticated,
		dray.CloseTooBig:   dray.ErrTooLarge,
		dray.CloseFlooding: dray.ErrRateLimited,
	} {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			f := newFake(t, func(p *peer) { p.close(number, "because") })
			c := dial(t, f)
			_, err := c.Nearby(testContext(t), dray.Circle{Radius: 1}, 0, nil)
			if ce, ok := errors.AsType[*client.CloseError](err); !ok || ce.Number != number || ce.Reason != "because" || !errors.Is(err, want) {
				t.Errorf("Nearby() = %v, want a CloseError of %d that is %v", err, number, want)
			}
			if err := c.Report(t.Context(), at("d1", 1)); err == nil {
				t.Error("Report() = nil after the client ended")
			}
			if n := f.connections(); n != 1 {
				t.Errorf("%d connections were made, want 1", n)
			}
		})
	}
}

func TestCloseNumbersThatAreComeBackFrom(t *testing.T) {
	numbers := []int{dray.CloseGoingAway, dray.CloseInternal, dray.CloseRestart, dray.CloseTokenExpiry, dray.CloseTooSlow}
	var scripts []func(*peer)
	for _, n := range numbers {
		scripts = append(scripts, func(p *peer) { p.close(n, "") })
	}
	scripts = append(scripts, func(p *peer) {
		m := p.hear("nearby")
		p.say(`{"type":"result","id":%s,"drivers":[]}`, m.ID)
		p.linger()
	})
	f := newFake(t, scripts...)
	tokens := 0
	c := dial(t, f, func(c *client.Config) {
		c.NewToken = func(context.Context) (string, error) { tokens++; return fmt.Sprint(tokens), nil }
	})
	if _, err := c.Nearby(testContext(t), dray.Circle{Radius: 1}, 0, nil); err != nil {
		t.Errorf("Nearby() = %v", err)
	}
	if tokens != len(numbers)+1 {
		t.Errorf("%d tokens were asked for, want %d: one a connection", tokens, len(numbers)+1)
	}
}

func TestNonsenseFromTheServerIsAReconnect(t *testing.T) {
	f := newFake(t,
		func(p *peer) { p.say(`{"type":"delta","id":`); p.linger() },
		func(p *peer) {
			p.say(`{"type":"of a later version"}`)
			m := p.hear("nearby")
			p.say(`{"type":"result","id":%s,"drivers":[]}`, m.ID)
			p.linger()
		})
	c := dial(t, f)
	if _, err := c.Nearby(testContext(t), dray.Circle{Radius: 1}, 0, nil); err != nil {
		t.Errorf("Nearby() = %v", err)
	}
}

func TestARefusalOfTheCallerEndsTheClient(t *testing.T) {
	tokens := 0
	f := newFake(t, func(p *peer) { p.drop() })
	c := dial(t, f, func(c *client.Config) {
		c.NewToken = func(context.Context) (string, error) {
			if tokens++; tokens > 1 {
				return "", dray.ErrUnauthenticated
			}
			return "first", nil
		}
	})
	if _, err := c.Nearby(testContext(t), dray.Circle{Radius: 1}, 0, nil); !errors.Is(err, dray.ErrUnauthenticated) {
		t.Errorf("Nearby() = %v, want %v", err, dray.ErrUnauthenticated)
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	c := dial(t, newFake(t, (*peer).linger))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := c.Nearby(ctx, dray.Circle{Radius: 1}, 0, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Nearby() = %v, want the end of its context", err)
	}
	if _, err := c.Subscribe(ctx, dray.Shape{Drivers: []string{"a"}}, nil, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Subscribe() = %v, want the end of its context", err)
	}
}

func TestCloseEndsEveryCall(t *testing.T) {
	f := newFake(t, func(p *peer) {
		m := p.hear("subscribe")
		p.say(`{"type":"snapshot","id":%s,"version":1,"serverTime":1,"drivers":[]}`, m.ID)
		p.linger()
	})
	c := dial(t, f)
	sub, err := c.Subscribe(testContext(t), dray.Shape{Drivers: []string{"a"}}, nil, 0)
	if err != nil {
		t.Fatalf("Subscribe() = %v", err)
	}
	next(t, sub)
	got := make(chan error, 2)
	go func() { got <- second(c.Nearby(context.Background(), dray.Circle{Radius: 1}, 0, nil)) }()
	go func() { got <- second(sub.Next(context.Background())) }()
	c.Close()
	for range 2 {
		if err := <-got; !errors.Is(err, client.ErrClosed) {
			t.Errorf("a waiting call = %v, want %v", err, client.ErrClosed)
		}
	}
	if err := c.Report(t.Context(), at("d1", 1)); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Report() = %v, want %v", err, client.ErrClosed)
	}
	if _, err := c.Subscribe(t.Context(), dray.Shape{Drivers: []string{"a"}}, nil, 0); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Subscribe() = %v, want %v", err, client.ErrClosed)
	}
}
