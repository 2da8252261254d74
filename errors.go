package dray

import (
	"errors"
	"fmt"
	"time"
)

// A Code is the stable name of a failure on the wire.
type Code string

// The codes of the contract. [Code.Status] and [Code.Retryable] give the rest of each row.
const (
	CodeBadRequest           Code = "bad_request"
	CodeInvalidPosition      Code = "invalid_position"
	CodeTooLarge             Code = "too_large"
	CodeUnauthenticated      Code = "unauthenticated"
	CodeForbidden            Code = "forbidden"
	CodeNotFound             Code = "not_found"
	CodeMethodNotAllowed     Code = "method_not_allowed"
	CodeUnsupportedMediaType Code = "unsupported_media_type"
	CodeSubscriptionExists   Code = "subscription_exists"
	CodeTooManySubscriptions Code = "too_many_subscriptions"
	CodeInsufficientStock    Code = "insufficient_stock"
	CodeBelowReserved        Code = "below_reserved"
	CodeExceedsHeld          Code = "exceeds_held"
	CodeIdempotencyMismatch  Code = "idempotency_mismatch"
	CodeReservationExpired   Code = "reservation_expired"
	CodeAlreadyCommitted     Code = "already_committed"
	CodeAlreadyReleased      Code = "already_released"
	CodeVersionConflict      Code = "version_conflict"
	CodeNoneAvailable        Code = "none_available"
	CodeDurabilityNotReached Code = "durability_not_reached"
	CodeRateLimited          Code = "rate_limited"
	CodeUnavailable          Code = "unavailable"
	CodeInternal             Code = "internal"
)

type codeRow struct {
	status    int
	retryable bool
	message   string
}

// codeRows is the one table from a code to what the wire says of it.
var codeRows = map[Code]codeRow{
	CodeBadRequest:           {400, false, "bad request"},
	CodeInvalidPosition:      {422, false, "invalid position"},
	CodeTooLarge:             {413, false, "too large"},
	CodeUnauthenticated:      {401, false, "no or bad credentials"},
	CodeForbidden:            {403, false, "not allowed"},
	CodeNotFound:             {404, false, "not found"},
	CodeMethodNotAllowed:     {405, false, "method not allowed"},
	CodeUnsupportedMediaType: {415, false, "unsupported media type"},
	CodeSubscriptionExists:   {409, false, "a live subscription has this id"},
	CodeTooManySubscriptions: {429, false, "too many subscriptions on this connection"},
	CodeInsufficientStock:    {409, false, "not enough stock"},
	CodeBelowReserved:        {409, false, "quantity is below what is reserved"},
	CodeExceedsHeld:          {409, false, "more than is held"},
	CodeIdempotencyMismatch:  {409, false, "key was used with another request"},
	CodeReservationExpired:   {409, false, "reservation has expired"},
	CodeAlreadyCommitted:     {409, false, "already committed"},
	CodeAlreadyReleased:      {409, false, "already released"},
	CodeVersionConflict:      {409, false, "version is not the current one"},
	CodeNoneAvailable:        {409, false, "no driver is available"},
	CodeDurabilityNotReached: {503, true, "not enough replicas confirmed in time"},
	CodeRateLimited:          {429, true, "too many requests"},
	CodeUnavailable:          {503, true, "Redis is out of reach"},
	CodeInternal:             {500, true, "internal error"},
}

// Status is the HTTP status of c; 500 for a code that is not in the contract.
func (c Code) Status() int {
	if row, ok := codeRows[c]; ok {
		return row.status
	}
	return codeRows[CodeInternal].status
}

// Retryable tells whether the same request may succeed later without a change.
func (c Code) Retryable() bool { return codeRows[c].retryable }

// Codes returns every code of the contract, in no order.
func Codes() []Code {
	all := make([]Code, 0, len(codeRows))
	for c := range codeRows {
		all = append(all, c)
	}
	return all
}

// One value for each code. Compare with [errors.Is]: two errors of the same code match,
// whatever their message and details.
var (
	ErrBadRequest           = newError(CodeBadRequest)
	ErrInvalidPosition      = newError(CodeInvalidPosition)
	ErrTooLarge             = newError(CodeTooLarge)
	ErrUnauthenticated      = newError(CodeUnauthenticated)
	ErrForbidden            = newError(CodeForbidden)
	ErrNotFound             = newError(CodeNotFound)
	ErrMethodNotAllowed     = newError(CodeMethodNotAllowed)
	ErrUnsupportedMediaType = newError(CodeUnsupportedMediaType)
	ErrSubscriptionExists   = newError(CodeSubscriptionExists)
	ErrTooManySubscriptions = newError(CodeTooManySubscriptions)
	ErrInsufficientStock    = newError(CodeInsufficientStock)
	ErrBelowReserved        = newError(CodeBelowReserved)
	ErrExceedsHeld          = newError(CodeExceedsHeld)
	ErrIdempotencyMismatch  = newError(CodeIdempotencyMismatch)
	ErrReservationExpired   = newError(CodeReservationExpired)
	ErrAlreadyCommitted     = newError(CodeAlreadyCommitted)
	ErrAlreadyReleased      = newError(CodeAlreadyReleased)
	ErrVersionConflict      = newError(CodeVersionConflict)
	ErrNoneAvailable        = newError(CodeNoneAvailable)
	ErrDurabilityNotReached = newError(CodeDurabilityNotReached)
	ErrRateLimited          = newError(CodeRateLimited)
	ErrUnavailable          = newError(CodeUnavailable)
	ErrInternal             = newError(CodeInternal)
)

func newError(code Code) *Error { return &Error{Code: code, Message: codeRows[code].message} }

// A Detail says what is wrong with one part of a request: Field and Message, or, for a
// shortage of stock, SKU with what was asked for and what is there.
type Detail struct {
	Field     string `json:"field,omitempty"`
	Message   string `json:"message,omitempty"`
	SKU       string `json:"sku,omitempty"`
	Requested *int64 `json:"requested,omitempty"`
	Available *int64 `json:"available,omitempty"`
}

// An Error is a failure that a caller may act on. Message may be shown to a client.
type Error struct {
	Code       Code
	Message    string
	Details    []Detail
	RetryAfter time.Duration // 0 when unknown
}

func (e *Error) Error() string {
	text := e.Message
	for i, d := range e.Details {
		switch {
		case d.Requested != nil && d.Available != nil:
			text += fmt.Sprintf("%s%s: %d asked for, %d there", [...]string{": ", ", "}[min(i, 1)], d.SKU, *d.Requested, *d.Available)
		case i == 0 && d.Field != "":
			return fmt.Sprintf("%s: %s: %s", text, d.Field, d.Message)
		}
	}
	return text
}

// Is matches any *Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Errorf makes an error of the given code with its own message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// FieldError makes an error of the given code whose one detail names a field of the request.
func FieldError(code Code, field, format string, args ...any) *Error {
	return &Error{
		Code:    code,
		Message: codeRows[code].message,
		Details: []Detail{{Field: field, Message: fmt.Sprintf(format, args...)}},
	}
}

// CodeOf is the one way from an error to its code. An error without a code is
// [CodeInternal]: its text is for the log, never for a client. CodeOf(nil) is "".
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// AsError gives the *Error to show for err: the one it wraps, or a bare [ErrInternal].
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return ErrInternal
}

// Close numbers of the WebSocket (RFC 6455, section 7.4, and dray's own from 4000).
const (
	CloseGoingAway   = 1001
	CloseUnsupported = 1003 // binary frame
	CloseNotUTF8     = 1007
	ClosePolicy      = 1008 // refused at the door, or too many bad requests
	CloseTooBig      = 1009
	CloseInternal    = 1011
	CloseRestart     = 1012
	CloseTokenExpiry = 4001
	CloseRevoked     = 4003
	CloseTooSlow     = 4008
	CloseFlooding    = 4029
)

// Reconnects tells whether a client should come back, with jitter, after this close
// number. -1 stands for a connection lost without one.
func Reconnects(closeNumber int) bool {
	switch closeNumber {
	case -1, CloseGoingAway, CloseInternal, CloseRestart, CloseTokenExpiry, CloseTooSlow:
		return true
	}
	return false
}
