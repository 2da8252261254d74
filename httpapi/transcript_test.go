package httpapi_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

var update = flag.Bool("update", false, "write what was received into testdata")

// TestTranscripts plays each story of testdata against a node of its own. A line is
//
//	d1 > text          d1 sends it; the first line of d1 opens the connection
//	d1 < text          d1 receives it
//	d1 < close 1008    d1's connection ends so
//	d1 > close 1000    d1 closes
//	h > PUT /path {}   a request over REST; " key=k" behind it is its Idempotency-Key
//	h < 200 {}         its answer
//
// T+5 stands for a time 5 ms after the story began, T for any time of the server's clock, R1 for
// the first reservation that the story tells of, CLAIM for the last claim. The server's other ids
// and numbers that vary are written 0.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no stories: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			play(t, file)
		})
	}
}

// A story is a transcript while it is played.
type story struct {
	node    *node
	began   time.Time
	clients map[string]*client
	answer  string // of the last request over REST

	reservations []string // R1 and so on
	claim        string   // the last claim
}

func play(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &story{node: start(t, nil), began: time.Now(), clients: map[string]*client{}}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i, line := range lines {
		who, rest, ok := strings.Cut(line, " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if what, sends := strings.CutPrefix(rest, "> "); sends {
			s.send(who, what)
			continue
		}
		want := strings.TrimSpace(strings.TrimPrefix(rest, "<"))
		got := s.receive(who)
		lines[i] = who + " < " + got
		if got != want && !*update {
			t.Errorf("%s:%d:\n got %s\nwant %s", file, i+1, got, want)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *story) send(who, what string) {
	what = sentTime.ReplaceAllStringFunc(what, func(m string) string {
		ms, _ := strconv.Atoi(m[1:])
		return strconv.FormatInt(s.began.UnixMilli()+int64(ms), 10)
	})
	for i, id := range s.reservations {
		what = strings.ReplaceAll(what, fmt.Sprintf("R%d", i+1), id)
	}
	what = strings.ReplaceAll(what, "CLAIM", s.claim)
	if who == "h" {
		method, rest, _ := strings.Cut(what, " ")
		var header []string
		if key := aKey.FindStringSubmatch(rest); key != nil {
			rest, header = rest[:len(rest)-len(key[0])], []string{"Idempotency-Key", key[1]}
		}
		path, body, _ := strings.Cut(rest, " ")
		res, answer := s.node.do(method, path, body, header...)
		s.answer = strings.TrimSpace(strconv.Itoa(res.StatusCode) + " " + strings.TrimSpace(answer))
		return
	}
	c := s.client(who)
	if code, ok := strings.CutPrefix(what, "close "); ok {
		n, _ := strconv.Atoi(code)
		c.ws.Close(websocket.StatusCode(n), "")
		return
	}
	c.send(what)
}

func (s *story) client(who string) *client {
	c := s.clients[who]
	if c == nil {
		c = s.node.dial(nil)
		s.clients[who] = c
		if who != "w" { // w looks at its welcome itself
			c.read()
		}
	}
	return c
}

func (s *story) receive(who string) string {
	if who == "h" {
		return s.mask(s.answer)
	}
	text, err := s.client(who).tryRead()
	if err != nil {
		return fmt.Sprintf("close %d", websocket.CloseStatus(err))
	}
	return s.mask(text)
}

var (
	sentTime = regexp.MustCompile(`T[+-]\d+`)
	gotTime  = regexp.MustCompile(`"timestamp":(\d+)`)
	anyTime  = regexp.MustCompile(`"(serverTime|receivedAt|lastUpdated|expiresAt|at)":\d+`)
	gotOrder = regexp.MustCompile(`"reservation":"([^"]+)"`)
	anyID    = regexp.MustCompile(`"(connection|requestId)":"[A-Z0-9]+"`)
	anySize  = regexp.MustCompile(`"(version|retryAfterMs|entry)":\d+`)
	anyPlace = regexp.MustCompile(`"cursor":"\d+"`) // in a ledger
	anyFloat = regexp.MustCompile(`("distance":\d+\.\d)\d*`)
	aClaim   = regexp.MustCompile(`"claim":"([A-Z0-9]{26})"`)
	aKey     = regexp.MustCompile(` key=(\S+)$`)
)

func (s *story) mask(text string) string {
	if m := aClaim.FindStringSubmatch(text); m != nil {
		s.claim = m[1]
	}
	text = gotTime.ReplaceAllStringFunc(text, func(m string) string {
		ms, _ := strconv.ParseInt(m[len(`"timestamp":`):], 10, 64)
		return fmt.Sprintf(`"timestamp":T%+d`, ms-s.began.UnixMilli())
	})
	for _, m := range gotOrder.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(s.reservations, m[1]) {
			s.reservations = append(s.reservations, m[1])
		}
	}
	for i, id := range s.reservations {
		text = strings.ReplaceAll(text, id, fmt.Sprintf("R%d", i+1))
	}
	text = aClaim.ReplaceAllString(text, `"claim":"CLAIM"`)
	text = anyTime.ReplaceAllString(text, `"$1":T`)
	text = anyID.ReplaceAllString(text, `"$1":"0"`)
	text = anySize.ReplaceAllString(text, `"$1":0`)
	text = anyPlace.ReplaceAllString(text, `"cursor":"0"`)
	return anyFloat.ReplaceAllString(text, "$1")
}
