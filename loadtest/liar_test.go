package loadtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"dray/loadtest"
)

// A liar is a server that takes positions, and keeps some of its promises about them. Its
// watchers hear of nothing, and nobody is near.
type liar struct {
	forgets  bool // a driver, once its position was acknowledged
	stale    bool // it tells the first position of a driver only
	twice    bool // it answers positions
	confused bool // its watchers hear of a driver that they don't have, in a version that stands still

	mu   sync.Mutex // guards held
	held map[string]json.RawMessage
}

type liarMessage struct {
	Type      string            `json:"type"`
	ID        json.RawMessage   `json:"id"`
	Seq       json.RawMessage   `json:"seq"`
	Positions []json.RawMessage `json:"positions"`
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if driver, ok := strings.CutPrefix(r.URL.Path, "/v1/drivers/"); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.forgets && strings.HasSuffix(driver, "3") {
			http.NotFound(w, r)
			return
		}
		w.Write(l.held[driver])
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20)
	say := func(format string, args ...any) {
		ws.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil, format, args...))
	}
	for {
		_, b, err := ws.Read(r.Context())
		if err != nil {
			return
		}
		var m liarMessage
		if json.Unmarshal(b, &m) != nil {
			return
		}
		switch m.Type {
		case "position":
			l.keep(b)
			say(`{"type":"ack","seq":%s}`, m.Seq)
		case "positions":
			for _, p := range m.Positions {
				l.keep(p)
			}
			say(`{"type":"ok","id":%s,"accepted":%d,"superseded":0,"rejected":[]}`, m.ID, len(m.Positions))
			if l.twice {
				say(`{"type":"ok","id":%s,"accepted":%d,"superseded":0,"rejected":[]}`, m.ID, len(m.Positions))
			}
		case "subscribe":
			say(`{"type":"snapshot","id":%s,"version":1,"serverTime":1,"drivers":[]}`, m.ID)
			if l.confused {
				l.mu.Lock()
				for _, d := range l.held {
					say(`{"type":"delta","id":%s,"version":1,"serverTime":1,"moved":[%s]}`, m.ID, d)
					break
				}
				l.mu.Unlock()
			}
		case "nearby":
			say(`{"type":"result","id":%s,"drivers":[]}`, m.ID)
		}
	}
}

func (l *liar) keep(p json.RawMessage) {
	var d struct{ Driver string }
	json.Unmarshal(p, &d)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]json.RawMessage{}
	}
	if l.held[d.Driver] == nil || !l.stale {
		l.held[d.Driver] = append(json.RawMessage(nil), p...)
	}
}

func TestLiesAreFound(t *testing.T) {
	for _, test := range []struct {
		name string
		liar *liar
		run  func(context.Context, loadtest.Target) (*loadtest.Result, error)
		fail string // the check that must
	}{
		{"acknowledged drivers that are not there", &liar{forgets: true}, ingest("answer"), "acknowledged position is stored"},
		{"acknowledged and streamed drivers that are not there", &liar{forgets: true}, ingest("stream"), "acknowledged position is stored"},
		{"older positions than were acknowledged", &liar{stale: true}, ingest("answer"), "acknowledged position is stored"},
		{"positions answered twice", &liar{twice: true}, ingest("answer"), "is answered, and once"},
		{"watchers that hear nothing", &liar{}, look, "every set ends up"},
		{"watchers that hear what can't be", &liar{confused: true}, look, "keeps the contract"},
		{"answers without the nearest", &liar{}, ask, "nearest drivers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			url := listen(t, &http.Server{Handler: test.liar}, func(context.Context) {})
			r, err := test.run(t.Context(), loadtest.Target{Name: "liar", URL: url})
			if err != nil {
				t.Fatalf("run = %v", err)
			}
			for _, c := range r.Checks {
				if strings.Contains(c.What, test.fail) && (c.Failed == 0 || len(c.Examples) == 0) {
					t.Errorf("%s: %d checked, %d failed, %q, want failures", c.What, c.Checked, c.Failed, c.Examples)
				}
			}
			if r.Failed() == 0 {
				t.Error("no check failed")
			}
		})
	}
}

func TestAnHonestServerIsNotALiar(t *testing.T) {
	url := listen(t, &http.Server{Handler: new(liar)}, func(context.Context) {})
	for _, mode := range loadtest.IngestModes {
		r, err := ingest(mode)(t.Context(), loadtest.Target{Name: "liar", URL: url})
		if err != nil || r.Failed() > 0 {
			t.Errorf("%s = %+v, %v, want no failures", mode, r, err)
		}
	}
}

func ingest(mode string) func(context.Context, loadtest.Target) (*loadtest.Result, error) {
	return func(ctx context.Context, target loadtest.Target) (*loadtest.Result, error) {
		return loadtest.Ingest(ctx, target, ingestPlan(mode))
	}
}

func look(ctx context.Context, target loadtest.Target) (*loadtest.Result, error) {
	return loadtest.Watch(ctx, target, watchPlan(0))
}

func ask(ctx context.Context, target loadtest.Target) (*loadtest.Result, error) {
	return loadtest.Nearby(ctx, target, nearbyPlan(false))
}
