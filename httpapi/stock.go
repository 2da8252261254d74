package httpapi

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
	"dray/realtime/inventory"
)

type stockRequest order

func (in *stockRequest) read(q *request) (err error) {
	in.location, in.sku, err = q.stock()
	return err
}

// stock is the path's {location} and {sku}.
func (q *request) stock() (location, sku string, err error) {
	if location, err = q.id("location"); err != nil {
		return "", "", err
	}
	sku, err = q.id("sku")
	return location, sku, err
}

type stockReply struct{ *dray.Stock }

func (out stockReply) head(h http.Header) int {
	h.Set("ETag", `"`+strconv.FormatInt(out.Version, 10)+`"`)
	return http.StatusOK
}

func (stockReply) name() string { return "stock" }

// getStock is GET /v1/stock/{location}/{sku}, and the message stock.
func (s *Server) getStock(ctx context.Context, who Caller, in stockRequest) (out stockReply, err error) {
	if !who.MaySeeStock() {
		return out, dray.ErrForbidden
	}
	stock, err := s.stock.Get(ctx, in.location, in.sku)
	return stockReply{&stock}, err
}

// A changeRequest is what every change of a SKU has.
type changeRequest struct {
	location, sku, reason string
	options               inventory.Options
}

// A changeBody is its part of the body.
type changeBody struct {
	Reason   jsontext.Value `json:"reason"`
	Replicas jsontext.Value `json:"replicas"`
}

// readChange reads the body into w, of which common is a part.
func (in *changeRequest) readChange(q *request, w any, common *changeBody) (err error) {
	if in.location, in.sku, err = q.stock(); err != nil {
		return err
	}
	if err := q.body(w); err != nil {
		return err
	}
	if v := common.Reason; !absent(v) && (v.Kind() != '"' || dray.Unmarshal(v, &in.reason) != nil) {
		return dray.FieldError(dray.CodeBadRequest, "reason", "must be a string")
	}
	if in.options.Key, err = q.key(); err != nil {
		return err
	}
	in.options.Replicas, err = readReplicas(common.Replicas)
	return err
}

type setStockRequest struct {
	changeRequest
	set inventory.Set
}

func (in *setStockRequest) read(q *request) (err error) {
	var w struct {
		changeBody
		Quantity jsontext.Value `json:"quantity"`
		Force    jsontext.Value `json:"force"`
	}
	if err := in.readChange(q, &w, &w.changeBody); err != nil {
		return err
	}
	in.set.Reason = in.reason
	if in.set.Quantity, err = readUnits("quantity", w.Quantity, 0); err != nil {
		return err
	}
	if in.set.Force = w.Force.Kind() == 't'; !absent(w.Force) && !in.set.Force && w.Force.Kind() != 'f' {
		return dray.FieldError(dray.CodeBadRequest, "force", "must be true or false")
	}
	in.set.Version, err = q.version()
	return err
}

// setStock is PUT /v1/stock/{location}/{sku}.
func (s *Server) setStock(ctx context.Context, who Caller, in setStockRequest) (out stockReply, err error) {
	if !who.MaySetStock() {
		return out, dray.ErrForbidden
	}
	in.options.By = who.Name()
	stock, err := s.stock.Set(ctx, in.location, in.sku, in.set, in.options)
	return stockReply{&stock}, err
}

type adjustRequest struct {
	changeRequest
	delta int64
}

func (in *adjustRequest) read(q *request) error {
	var w struct {
		changeBody
		Delta jsontext.Value `json:"delta"`
	}
	if err := in.readChange(q, &w, &w.changeBody); err != nil {
		return err
	}
	for _, name := range [...]string{"If-Match", "If-None-Match"} {
		if q.http.Header.Values(name) != nil { // passed over, it would be done all the same
			return dray.FieldError(dray.CodeBadRequest, name, "is for PUT: an adjust takes no condition")
		}
	}
	var ok bool
	if in.delta, ok = integer(w.Delta); !ok {
		return dray.FieldError(dray.CodeBadRequest, "delta", "must be an integer within ±%d, and not 0", dray.MaxQuantity)
	}
	return nil
}

// adjustStock is POST /v1/stock/{location}/{sku}/adjust.
func (s *Server) adjustStock(ctx context.Context, who Caller, in adjustRequest) (out stockReply, err error) {
	if !who.MaySetStock() {
		return out, dray.ErrForbidden
	}
	in.options.By = who.Name()
	stock, err := s.stock.Adjust(ctx, in.location, in.sku, in.delta, in.reason, in.options)
	return stockReply{&stock}, err
}

// version is what a change depends on: If-Match names a version, as an ETag told it, and
// If-None-Match: * is version 0, of what does not exist; nil where neither is there.
func (q *request) version() (*int64, error) {
	match, noMatch := q.http.Header.Values("If-Match"), q.http.Header.Values("If-None-Match")
	var version int64
	switch {
	case len(match) == 0 && len(noMatch) == 0:
		return nil, nil
	case len(match) == 0 && len(noMatch) == 1 && noMatch[0] == "*":
		return &version, nil
	case len(noMatch) > 0:
		return nil, dray.FieldError(dray.CodeBadRequest, "If-None-Match", "must be *, and without If-Match")
	}
	tag, opened := strings.CutPrefix(match[0], `"`)
	tag, closed := strings.CutSuffix(tag, `"`)
	version, err := strconv.ParseInt(tag, 10, 64)
	if len(match) > 1 || !opened || !closed || err != nil || version < 1 || tag[0] == '+' {
		return nil, dray.FieldError(dray.CodeBadRequest, "If-Match", "must be one version in quotes, as ETag tells it")
	}
	return &version, nil
}

const keyHeader = "Idempotency-Key"

// key is the Idempotency-Key, bare or as a quoted string (RFC 9651, section 3.3.3); "" where
// there is none.
func (q *request) key() (string, error) {
	values := q.http.Header.Values(keyHeader)
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if strings.HasPrefix(key, `"`) {
		inner := quotedKey.FindStringSubmatch(key)
		if inner == nil { // two keys are such, too
			return "", notKey(keyHeader)
		}
		key = unescape.Replace(inner[1])
	}
	if len(values) > 1 || !validKey(key) {
		return "", notKey(keyHeader)
	}
	return key, nil
}

var quotedKey = regexp.MustCompile(`^"((?:[^"\\]|\\["\\])*)"$`)

var unescape = strings.NewReplacer(`\\`, `\`, `\"`, `"`)

const defaultPage = 100 // rows or entries

type pageRequest struct {
	location, sku, reservation string
	cursor                     string
	limit                      int
}

func (in *pageRequest) read(q *request) (err error) {
	if in.cursor, err = q.value("cursor"); err != nil {
		return err
	}
	in.limit, err = q.limit(defaultPage, dray.MaxLimit)
	return err
}

// A page is a list whose next part begins at a cursor; "" is the end.
type page[T any, P interface {
	*T
	AppendJSON(b []byte) []byte
}] struct {
	name   string
	list   []T
	cursor string
}

func (out page[T, P]) AppendJSON(b []byte) []byte {
	b = append(append(append(b, `{"`...), out.name...), `":[`...)
	for i := range out.list {
		if i > 0 {
			b = append(b, ',')
		}
		b = P(&out.list[i]).AppendJSON(b)
	}
	b = append(b, `],"cursor":`...)
	if out.cursor == "" {
		return append(b, "null}"...)
	}
	return append(dray.AppendString(b, out.cursor), '}')
}

type (
	stockPage  = page[dray.Stock, *dray.Stock]
	ledgerPage = page[dray.LedgerEntry, *dray.LedgerEntry]
)

type stockListRequest struct{ pageRequest }

func (in *stockListRequest) read(q *request) (err error) {
	if in.location, err = q.id("location"); err != nil {
		return err
	}
	return in.pageRequest.read(q)
}

// listStock is GET /v1/stock/{location}.
func (s *Server) listStock(ctx context.Context, who Caller, in stockListRequest) (out stockPage, err error) {
	if !who.MaySeeStock() {
		return out, dray.ErrForbidden
	}
	list, next, err := s.stock.List(ctx, in.location, in.cursor, in.limit)
	return stockPage{"stock", list, next}, err
}

type ledgerRequest struct{ pageRequest }

func (in *ledgerRequest) read(q *request) (err error) {
	if in.location, in.sku, err = q.stock(); err != nil {
		return err
	}
	return in.pageRequest.read(q)
}

// getLedger is GET /v1/stock/{location}/{sku}/ledger.
func (s *Server) getLedger(ctx context.Context, who Caller, in ledgerRequest) (out ledgerPage, err error) {
	if !who.MaySeeStock() {
		return out, dray.ErrForbidden
	}
	entries, next, err := s.stock.Ledger(ctx, in.location, in.sku, in.cursor, in.limit)
	return ledgerPage{"entries", entries, next}, err
}
