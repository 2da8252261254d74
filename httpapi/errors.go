package httpapi

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"

	"dray"
)

// shown is what a client gets to see of err; what it does not is logged with where, the id
// of the request or connection.
func (s *Server) shown(err error, where string) *dray.Error {
	if e, ok := errors.AsType[*dray.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return dray.ErrUnavailable
	}
	s.log.Error("internal error", "where", where, "error", err)
	return dray.ErrInternal
}

// appendError appends the members that every error has, its message under the given name.
func appendError(b []byte, e *dray.Error, message string) []byte {
	b = dray.AppendString(append(b, `"code":`...), string(e.Code))
	b = append(append(append(b, `,"`...), message...), `":`...)
	b = dray.AppendString(b, e.Message)
	b = strconv.AppendBool(append(b, `,"retryable":`...), e.Code.Retryable())
	if e.RetryAfter > 0 {
		b = appendInt(b, `,"retryAfterMs":`, max(1, e.RetryAfter.Milliseconds()))
	}
	if len(e.Details) > 0 {
		b = appendDetails(append(b, `,"details":`...), e.Details)
	}
	return b
}

func appendDetails(b []byte, details []dray.Detail) []byte {
	b = append(b, '[')
	for i := range details {
		d := &details[i]
		if i > 0 {
			b = append(b, ',')
		}
		open := byte('{')
		text := func(name, value string) {
			if value != "" {
				b = append(append(b, open), name...)
				b = dray.AppendString(b, value)
				open = ','
			}
		}
		number := func(name string, value *int64) {
			if value != nil {
				b = appendInt(append(b, open), name, *value)
				open = ','
			}
		}
		text(`"field":`, d.Field)
		text(`"message":`, d.Message)
		text(`"sku":`, d.SKU)
		number(`"requested":`, d.Requested)
		number(`"available":`, d.Available)
		if open == '{' {
			b = append(b, '{')
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// problem answers with err as a problem document (RFC 9457).
func (s *Server) problem(w http.ResponseWriter, err error) {
	id := requestID(w)
	e := s.shown(err, id)
	s.m.failed(e.Code)
	status := e.Code.Status()
	b := append([]byte(nil), `{"type":"about:blank","title":`...)
	b = dray.AppendString(b, http.StatusText(status))
	b = appendInt(b, `,"status":`, int64(status))
	b = append(b, ',')
	b = appendError(b, e, "detail")
	b = dray.AppendString(append(b, `,"requestId":`...), id)
	b = append(b, '}', '\n')
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
}
