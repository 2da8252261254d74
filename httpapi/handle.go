package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"dray"
)

// A request is what a request type reads itself from.
type request struct {
	http  *http.Request
	query url.Values // what no one has read yet
	text  []byte     // the body; nil when there is none
}

// readable is a request type: *T reads itself from what came, checking the form. It fails with
// a *dray.Error.
type readable[T any] interface {
	*T
	read(q *request) error
}

// A reply is a result type that writes itself as JSON.
type reply interface{ AppendJSON(b []byte) []byte }

// A headed reply has headers and a status of its own.
type headed interface {
	head(h http.Header) (status int)
}

// none is the result of what has nothing to tell: 204.
type none struct{}

func (none) AppendJSON(b []byte) []byte { return b }

// handle makes an http.Handler of a function from request to reply. It alone bounds and
// reads the body, names the caller, bounds the time, maps the error and counts.
func handle[In any, P readable[In], Out reply](s *Server, f func(context.Context, Caller, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, err := s.caller(r)
		if err != nil {
			s.problem(w, err)
			return
		}
		buf := s.buffers.Get().(*[]byte)
		defer func() {
			if cap(*buf) <= keptBuffer {
				s.buffers.Put(buf)
			}
		}()
		var in In
		if *buf, err = s.readRequest(w, r, P(&in), (*buf)[:0]); err != nil {
			s.problem(w, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), s.cfg.RequestTimeout)
		defer cancel()
		out, err := f(ctx, who, in)
		if err != nil {
			s.problem(w, err)
			return
		}
		*buf = out.AppendJSON((*buf)[:0]) // in is not used any more
		status := http.StatusOK
		if out, ok := any(out).(headed); ok {
			status = out.head(w.Header())
		}
		writeJSON(w, status, *buf)
	}
}

// readRequest reads r into in, its body into b.
func (s *Server) readRequest(w http.ResponseWriter, r *http.Request, in interface{ read(*request) error }, b []byte) ([]byte, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return b, dray.Errorf(dray.CodeBadRequest, "the query is not well-formed")
	}
	if r.Method != http.MethodPut && r.Method != http.MethodPost || bodiless(r) {
		return b, in.read(&request{r, query, nil})
	}
	if b, err = s.readBody(w, r, b); err != nil {
		return b, err
	}
	return b, in.read(&request{r, query, b})
}

// bodiless tells whether r has no body and does not say what it would be.
func bodiless(r *http.Request) bool {
	return r.ContentLength == 0 && r.Header.Get("Content-Type") == ""
}

var errNotJSON = dray.Errorf(dray.CodeUnsupportedMediaType, "the body must be application/json")

// readBody appends the JSON body of r to b.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, b []byte) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return b, errNotJSON
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return b, dray.Errorf(dray.CodeUnsupportedMediaType, "the body must not be compressed")
	}
	body := http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxBodyBytes))
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if _, over := errors.AsType[*http.MaxBytesError](err); over {
			return b, dray.Errorf(dray.CodeTooLarge, "the body is over %d bytes", s.cfg.MaxBodyBytes)
		}
		if err != nil {
			return b, dray.Errorf(dray.CodeBadRequest, "the body did not come to its end")
		}
	}
}

func writeJSON(w http.ResponseWriter, status int, b []byte) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if len(b) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
}

// body decodes the JSON body, which must be there, into v.
func (q *request) body(v any) error {
	if q.text == nil {
		return errNotJSON
	}
	return dray.Unmarshal(q.text, v)
}

// id is the id that stands in the path under a name.
func (q *request) id(name string) (string, error) {
	id, ok := q.path(name)
	if !ok || !dray.ValidID(id) {
		return "", notID(name)
	}
	return id, nil
}

// serverID is the id of the server's own that stands in the path under a name.
func (q *request) serverID(name string) (string, error) {
	id, ok := q.path(name)
	if !ok || !dray.ValidServerID(id) {
		return "", notServerID(name)
	}
	return id, nil
}

// path is what stands in the path under a name. Routes are matched on the path as it was
// sent, so this is the one place that unescapes it.
func (q *request) path(name string) (string, bool) {
	text, err := url.PathUnescape(chi.URLParam(q.http, name))
	return text, err == nil
}

// value takes a parameter out of the query; "" when it is absent.
func (q *request) value(name string) (string, error) {
	values, ok := q.query[name]
	if !ok {
		return "", nil
	}
	delete(q.query, name)
	if len(values) != 1 || values[0] == "" {
		return "", dray.FieldError(dray.CodeBadRequest, name, "must be given once, with a value")
	}
	return values[0], nil
}

// number takes a number out of the query. One over the range of numbers comes back as an
// infinity, for the domain to refuse.
func (q *request) number(name string) (float64, error) {
	text, err := q.value(name)
	if err != nil {
		return 0, err
	}
	if text == "" {
		return 0, dray.FieldError(dray.CodeBadRequest, name, "is missing")
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || strings.ContainsAny(text, "xXpP_nN") { // hexadecimal, NaN, Inf
		return 0, dray.FieldError(dray.CodeBadRequest, name, "must be a number")
	}
	return f, nil
}

// limit takes the limit out of the query.
func (q *request) limit(def, most int) (int, error) {
	text, err := q.value("limit")
	if err != nil || text == "" {
		return def, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, dray.FieldError(dray.CodeBadRequest, "limit", "must be an integer from 1 to %d", most)
	}
	return n, nil
}

// time takes a time in milliseconds out of the query; zero when it is absent.
func (q *request) time(name string) (time.Time, error) {
	text, err := q.value(name)
	if err != nil || text == "" {
		return time.Time{}, err
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 || ms >= 1<<53 {
		return time.Time{}, dray.FieldError(dray.CodeBadRequest, name, "must be milliseconds since 1970")
	}
	return time.UnixMilli(ms), nil
}

// guard stands before all routes: it names the request, counts it, keeps a panic from
// ending more than the request, and gives chi the path as it was sent.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.cfg.Now()
		w.Header().Set(requestIDHeader, newID())
		w.Header().Set("X-Content-Type-Options", "nosniff")
		seen := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				s.log.Error("a handler panicked", "where", requestID(w), "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				if !seen.began {
					s.problem(seen, dray.ErrInternal)
				}
			}
			s.m.request(routeOf(r), r.Method, seen.status, s.cfg.Now().Sub(began))
		}()
		rctx := chi.RouteContext(r.Context())
		rctx.RoutePath = r.URL.EscapedPath()
		if r.Method == http.MethodHead {
			rctx.RouteMethod = http.MethodGet // net/http leaves the body out
		}
		if oddPath(r.URL.Path) {
			s.problem(seen, dray.ErrNotFound)
			return
		}
		if len(r.TransferEncoding) > 0 {
			// There may have been a Content-Length too, which net/http drops: then whoever stands
			// in front may have read another request out of these bytes (RFC 9112, section 6.3).
			w.Header().Set("Connection", "close")
		}
		if !s.admit(seen, r) {
			return
		}
		next.ServeHTTP(seen, r)
	})
}

// oddPath tells whether a path tries to climb, or holds what no name of ours does.
func oddPath(path string) bool {
	return strings.IndexByte(path, 0) >= 0 || strings.Contains(path+"/", "/../") || strings.Contains(path+"/", "/./")
}

// routeOf is the pattern that served r, for counting: "none" where there was none.
func routeOf(r *http.Request) string {
	if rctx := chi.RouteContext(r.Context()); rctx != nil {
		if p := rctx.RoutePattern(); p != "" && p != "/" {
			return p
		}
	}
	return "none"
}

// A recorder remembers the status of a response.
type recorder struct {
	http.ResponseWriter
	status int
	began  bool
}

func (w *recorder) WriteHeader(status int) {
	w.status, w.began = status, true
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	w.began = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

const requestIDHeader = "X-Request-Id"

func requestID(w http.ResponseWriter) string { return w.Header().Get(requestIDHeader) }

// newID makes an id of a request or connection: 26 letters that cannot be guessed.
func newID() string { return rand.Text() }
