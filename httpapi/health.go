package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"
)

// A health is the answer of a probe.
type health struct {
	Status  string   `json:"status"`            // "ok" or "not ready"
	Reasons []string `json:"reasons,omitempty"` // why not
	Version string   `json:"version,omitempty"`
	PingMs  *float64 `json:"pingMs,omitempty"` // round trip to Redis
}

const probeTimeout = 2 * time.Second

// live answers as long as the process serves at all.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	s.writeHealth(w, health{Version: s.cfg.Version})
}

// ready tells whether new clients should be sent here.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	var h health
	if s.draining.Load() {
		h.Reasons = append(h.Reasons, "draining")
	}
	err := s.hub.Ready()
	if err == nil && s.cfg.LiveStock != nil {
		err = s.cfg.LiveStock.Ready()
	}
	if err != nil {
		s.outages.log(s, slog.LevelWarn, "not ready", "error", err)
		h.Reasons = append(h.Reasons, "a feed from Redis does not deliver")
	}
	if _, err := s.pingRedis(r.Context()); err != nil {
		h.Reasons = append(h.Reasons, "Redis does not answer")
	}
	s.writeHealth(w, h)
}

// redis tells whether Redis answers, and how fast.
func (s *Server) redis(w http.ResponseWriter, r *http.Request) {
	var h health
	took, err := s.pingRedis(r.Context())
	if err != nil {
		h.Reasons = append(h.Reasons, "Redis does not answer")
	} else {
		ms := float64(took.Microseconds()) / 1000
		h.PingMs = &ms
	}
	s.writeHealth(w, h)
}

func (s *Server) pingRedis(ctx context.Context) (time.Duration, error) {
	if s.ping == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	began := time.Now()
	err := s.ping(ctx)
	if err != nil {
		s.outages.log(s, slog.LevelWarn, "Redis does not answer a probe", "error", err)
	}
	return time.Since(began), err
}

func (s *Server) writeHealth(w http.ResponseWriter, h health) {
	h.Status = "ok"
	status := http.StatusOK
	if len(h.Reasons) > 0 {
		h.Status, status = "not ready", http.StatusServiceUnavailable
	}
	b, _ := json.Marshal(h)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}
