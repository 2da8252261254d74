package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dray"
)

// routes is every route there is; a test holds the documents to it.
func (s *Server) routes() *chi.Mux {
	r := chi.NewRouter()
	r.Use(s.guard)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) { s.problem(w, dray.ErrNotFound) })
	r.MethodNotAllowed(s.methodNotAllowed)

	r.Get("/v1/ws", s.openSocket)
	r.Get("/v1/drivers/nearby", handle(s, s.getNearby))
	r.Get("/v1/drivers/{driver}", handle(s, s.getDriver))
	r.Delete("/v1/drivers/{driver}", handle(s, s.deleteDriver))
	r.Put("/v1/drivers/{driver}/position", handle(s, s.putPosition))
	r.Get("/v1/drivers/{driver}/trail", handle(s, s.getTrail))
	r.Post("/v1/positions", handle(s, s.postPositions))
	r.Post("/v1/claims", handle(s, s.postClaim))
	r.Delete("/v1/claims/{claim}", handle(s, s.deleteClaim))

	if s.stock != nil {
		s.stockRoutes(r)
	}

	r.Get("/health/live", s.live)
	r.Get("/health/ready", s.ready)
	r.Get("/health/redis", s.redis)
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{}))

	r.Get("/openapi.json", serveDocument(openAPI))
	r.Get("/asyncapi.json", serveDocument(asyncAPI))
	r.Get("/docs", s.docs)
	r.Get("/", http.RedirectHandler("/docs", http.StatusFound).ServeHTTP)
	return r
}

func (s *Server) stockRoutes(r *chi.Mux) {
	r.Get("/v1/stock/{location}", handle(s, s.listStock))
	r.Get("/v1/stock/{location}/{sku}", handle(s, s.getStock))
	r.Put("/v1/stock/{location}/{sku}", handle(s, s.setStock))
	r.Post("/v1/stock/{location}/{sku}/adjust", handle(s, s.adjustStock))
	r.Get("/v1/stock/{location}/{sku}/ledger", handle(s, s.getLedger))
	r.Put("/v1/locations/{location}", handle(s, s.putLocation))
	r.Delete("/v1/locations/{location}", handle(s, s.deleteLocation))
	r.Post("/v1/reservations", handle(s, s.reserve))
	r.Get("/v1/reservations/{reservation}", handle(s, s.getReservation))
	r.Get("/v1/reservations/{reservation}/ledger", handle(s, s.getReservationLedger))
	r.Post("/v1/reservations/{reservation}/commit", handle(s, s.commitReservation))
	r.Post("/v1/reservations/{reservation}/release", handle(s, s.releaseReservation))
	r.Post("/v1/reservations/{reservation}/extend", handle(s, s.extendReservation))
}

// methodNotAllowed answers 405 with the methods that are, or 404 where there are none.
func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	routes := chi.RouteContext(r.Context()).Routes
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		asked := method
		if method == http.MethodHead {
			asked = http.MethodGet
		}
		if routes.Match(chi.NewRouteContext(), asked, r.URL.EscapedPath()) {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		s.problem(w, dray.ErrNotFound)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	s.problem(w, dray.ErrMethodNotAllowed)
}
