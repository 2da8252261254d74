package httpapi

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray"
)

// A frameKind is a type of frame that the server sends.
type frameKind uint8

const (
	frameWelcome frameKind = iota
	frameAck
	frameOK
	frameResult
	frameSnapshot
	frameDelta
	frameError
	frameGoodbye
	frameKinds
)

var frameNames = [frameKinds]string{"welcome", "ack", "ok", "result", "snapshot", "delta", "error", "goodbye"}

// metrics is the one list of what the edge counts.
type metrics struct {
	connections   prometheus.Gauge
	subscriptions prometheus.Gauge
	bytesIn       prometheus.Counter
	bytesOut      prometheus.Counter
	stalled       prometheus.Counter
	rateLimited   prometheus.Counter

	messages map[string]prometheus.Counter    // type -> its counter
	frames   [frameKinds]prometheus.Counter   // by frameKind
	errors   map[dray.Code]prometheus.Counter // code -> its counter
	age      prometheus.Histogram             // of a sample of the positions that are delivered
	sampled  atomic.Uint64                    // deltas, of which every sampleEvery-th is measured
	closes   *prometheus.CounterVec           // by code
	requests *prometheus.HistogramVec         // by route, method, status
}

func newMetrics(r prometheus.Registerer, remembered *budget) *metrics {
	m := &metrics{messages: map[string]prometheus.Counter{}, errors: map[dray.Code]prometheus.Counter{}}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		r.MustRegister(v)
		return v
	}
	m.connections = gauge("dray_ws_connections", "WebSockets that are open.")
	m.subscriptions = gauge("dray_ws_subscriptions", "Subscriptions of open WebSockets.")
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dray_ws_remembered_bytes", Help: "What connections remember of the attributes their drivers sent last, about.",
	}, func() float64 { return float64(remembered.used.Load()) }))
	m.bytesIn = counter("dray_ws_received_bytes_total", "Bytes read from WebSockets.")
	m.bytesOut = counter("dray_ws_sent_bytes_total", "Bytes written to WebSockets.")
	m.stalled = counter("dray_ws_stalled_total", "WebSockets closed because the client took nothing or answered no ping.")
	m.rateLimited = counter("dray_ws_rate_limited_total", "Messages refused because there were too many.")
	m.closes = counters("dray_ws_closes_total", "Close frames sent, by close number.", "code")

	m.age = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "dray_ws_delivery_age_seconds",
		Help:    "How old positions are, counted from when the server received them, as they are put into deltas; a sample. The clocks of Redis and this node both count.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10, 60},
	})
	r.MustRegister(m.age)

	messages := counters("dray_ws_messages_total", "Messages received that could be read, by type.", "type")
	for _, t := range []string{
		typeAuth, typePosition, typePositions, typeOffline, typeSubscribe, typeUpdate, typeUnsubscribe, typeNearby,
		typeClaim, typeUnclaim, typeStock, typeReserve, typeCommit, typeRelease, typeExtend,
	} {
		m.messages[t] = messages.WithLabelValues(t)
	}
	frames := counters("dray_ws_frames_total", "Frames made for clients, by type.", "type")
	for kind, name := range frameNames {
		m.frames[kind] = frames.WithLabelValues(name)
	}
	errors := counters("dray_errors_total", "Errors answered, by code, over REST and WebSocket.", "code")
	for _, code := range dray.Codes() {
		m.errors[code] = errors.WithLabelValues(string(code))
	}
	m.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "dray_http_request_duration_seconds",
		Help:    "Requests and how long they took, by route, method and status.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"route", "method", "status"})
	r.MustRegister(m.requests)
	return m
}

func (m *metrics) frame(kind frameKind) { m.frames[kind].Inc() }

const sampleEvery = 32

// delivered measures one in sampleEvery of the fragments it is shown, each a Driver object.
func (m *metrics) delivered(fragment []byte, now int64) {
	if m.sampled.Add(1)%sampleEvery != 0 {
		return
	}
	rest, ok := bytes.CutPrefix(fragment, []byte(`{"receivedAt":`)) // as Driver.AppendJSON begins
	at, end := fastInteger(rest, 0)
	if ok && end > 0 {
		m.age.Observe(float64(now-at) / 1000)
	}
}

func (m *metrics) message(typ string) {
	if c, ok := m.messages[typ]; ok {
		c.Inc()
	}
}

func (m *metrics) failed(code dray.Code) {
	if c, ok := m.errors[code]; ok {
		c.Inc()
	}
}

// closed counts a close frame by its payload.
func (m *metrics) closed(payload []byte) {
	code := "none"
	if len(payload) >= 2 {
		n := int(binary.BigEndian.Uint16(payload))
		switch {
		case n < 1016 || n == dray.CloseTokenExpiry || n == dray.CloseRevoked || n == dray.CloseTooSlow || n == dray.CloseFlooding:
			code = strconv.Itoa(n)
		default:
			code = "other" // a client's own: it must not make as many series as it likes
		}
	}
	m.closes.WithLabelValues(code).Inc()
}

func (m *metrics) request(route, method string, status int, took time.Duration) {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}
