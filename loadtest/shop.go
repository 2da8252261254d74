package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
)

// A shop is the stock of one location, asked over REST while nothing is measured.
type shop struct {
	base     string
	location string
	client   *http.Client
}

func (r *run) openShop() (*shop, error) {
	base, err := r.target.base()
	if err != nil {
		return nil, err
	}
	return &shop{
		base: base, location: "loadtest-" + strconv.FormatInt(time.Now().UnixNano(), 36),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: dialers}, Timeout: drainWait},
	}, nil
}

func (s *shop) close() { s.client.CloseIdleConnections() }

// do asks, and reads the answer into v.
func (s *shop) do(ctx context.Context, method, path, body string, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, text)
	}
	return dray.Unmarshal(text, v)
}

func (s *shop) path(sku string) string { return "/v1/stock/" + s.location + "/" + sku }

func (s *shop) stock(ctx context.Context, sku string) (stock dray.Stock, err error) {
	err = s.do(ctx, http.MethodGet, s.path(sku), "", &stock)
	return stock, err
}

// fill sets the quantity of every SKU.
func (s *shop) fill(ctx context.Context, skus []string, quantity int64) error {
	body := fmt.Sprintf(`{"quantity":%d}`, quantity)
	errs := make(chan error, dialers)
	var all sync.WaitGroup
	for w := range dialers {
		all.Go(func() {
			for i := w; i < len(skus); i += dialers {
				var stock dray.Stock
				if err := s.do(ctx, http.MethodPut, s.path(skus[i]), body, &stock); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// ledgerMost is how many entries of a ledger are read at most.
const ledgerMost = 100_000

// checkLedger goes back through the ledger of a SKU: it must begin at the counters, and each
// entry where the one before it ended.
func (s *shop) checkLedger(ctx context.Context, sku string, stock *dray.Stock, c *Check) error {
	next := dray.LedgerEntry{Quantity: dray.Step{Before: stock.Quantity}, Reserved: dray.Step{Before: stock.Reserved}}
	for cursor, read := "", 0; read < ledgerMost; {
		var page struct {
			Entries []dray.LedgerEntry `json:"entries"`
			Cursor  string             `json:"cursor"`
		}
		query := url.Values{"limit": {"1000"}}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		if err := s.do(ctx, http.MethodGet, s.path(sku)+"/ledger?"+query.Encode(), "", &page); err != nil {
			return err
		}
		for _, e := range page.Entries {
			if e.Quantity.After != next.Quantity.Before || e.Reserved.After != next.Reserved.Before {
				c.fail(1, "%s: entry %d ends with %d on hand, %d reserved; the next begins with %d, %d", sku, e.Entry,
					e.Quantity.After, e.Reserved.After, next.Quantity.Before, next.Reserved.Before)
			}
			next = e
			c.Checked++
		}
		read += len(page.Entries)
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	return nil
}

// A shopper is one connection that sends orders: requests to reserve, commit and so on.
type shopper interface {
	// send sends an order, to be answered under id.
	send(id int, o *order) error
	// next waits for an answer: a *dray.Error is a refusal.
	next() (id int, reservation string, refusal *dray.Error, err error)
}

// An order is what a shopper sends.
type order struct {
	verb        string // reserve, commit
	location    string
	sku         string
	quantity    int64
	reservation string
	key         string
}

// A socketShopper sends over the WebSocket; many orders may be under way.
type socketShopper struct {
	socket *socket
	frame  []byte
}

func (s *socketShopper) send(id int, o *order) error {
	b := append(begin(s.frame), `{"type":"`...)
	b = append(append(b, o.verb...), `","id":`...)
	b = strconv.AppendInt(b, int64(id), 10)
	if o.key != "" {
		b = append(append(append(b, `,"key":"`...), o.key...), '"')
	}
	if o.verb == "reserve" {
		b = append(append(append(b, `,"location":"`...), o.location...), `",`...)
		b = append(o.appendCart(b), '}')
	} else {
		b = append(append(append(b, `,"reservation":"`...), o.reservation...), `"}`...)
	}
	s.frame = b
	return s.socket.write(finish(b, opText))
}

// appendCart appends the members items and ttlSeconds.
func (o *order) appendCart(b []byte) []byte {
	b = append(append(append(b, `"items":[{"sku":"`...), o.sku...), `","quantity":`...)
	return append(strconv.AppendInt(b, o.quantity, 10), `}],"ttlSeconds":3600`...)
}

func (s *socketShopper) next() (id int, reservation string, refusal *dray.Error, err error) {
	for {
		b, err := s.socket.read()
		if err != nil {
			return 0, "", nil, err
		}
		c := cursor{b: b}
		if c.take(`{"type":"result","id":`) {
			id = int(c.natural())
			c.expect(`,"reservation":{"reservation":"`)
			end := bytes.IndexByte(b[min(c.i, len(b)):], '"')
			if c.bad || end < 0 {
				return 0, "", nil, fmt.Errorf("not an answer to an order: %.200s", b)
			}
			return id, string(b[c.i : c.i+end]), nil, nil
		}
		var w struct {
			Type    string         `json:"type"`
			ID      jsontext.Value `json:"id"`
			Code    dray.Code      `json:"code"`
			Message string         `json:"message"`
		}
		if err := dray.Unmarshal(b, &w); err != nil {
			return 0, "", nil, err
		}
		if w.Type == "error" {
			refusal = &dray.Error{Code: w.Code, Message: w.Message}
			if id, err = strconv.Atoi(string(w.ID)); err != nil {
				return 0, "", nil, refusal
			}
			return id, "", refusal, nil
		}
	}
}

// An httpShopper sends over REST, on one connection that is kept alive: an order at a time.
type httpShopper struct {
	host string
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
	id   int
}

func (r *run) dialShopper() (*httpShopper, error) {
	base, err := r.target.base()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" {
		return nil, errors.New("--http is not for TLS")
	}
	conn, err := new(net.Dialer).DialContext(r.ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(r.ctx, func() { conn.Close() })
	return &httpShopper{host: u.Host, conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

func (s *httpShopper) send(id int, o *order) error {
	s.id = id
	path := "/v1/reservations"
	s.body = append(s.body[:0], '{')
	if o.verb == "reserve" {
		s.body = append(append(append(s.body, `"location":"`...), o.location...), `",`...)
		s.body = o.appendCart(s.body)
	} else {
		path += "/" + o.reservation + "/" + o.verb
	}
	s.body = append(s.body, '}')
	s.out = fmt.Appendf(s.out[:0], "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, s.host, len(s.body))
	if o.key != "" {
		s.out = fmt.Appendf(s.out, "Idempotency-Key: %s\r\n", o.key)
	}
	s.out = append(append(s.out, "\r\n"...), s.body...)
	_, err := s.conn.Write(s.out)
	return err
}

func (s *httpShopper) next() (id int, reservation string, refusal *dray.Error, err error) {
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return 0, "", nil, err
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", nil, err
	}
	var w struct {
		Reservation string    `json:"reservation"`
		Code        dray.Code `json:"code"`
		Detail      string    `json:"detail"`
	}
	if err := dray.Unmarshal(text, &w); err != nil {
		return 0, "", nil, fmt.Errorf("%s: %w: %.100s", resp.Status, err, text)
	}
	if resp.StatusCode >= 300 {
		return s.id, "", &dray.Error{Code: w.Code, Message: w.Detail}, nil
	}
	return s.id, w.Reservation, nil, nil
}

// shoppers opens n connections.
func (r *run) shoppers(n int, overHTTP bool) (list []shopper, err error) {
	if overHTTP {
		for range n {
			s, err := r.dialShopper()
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
		return list, nil
	}
	sockets, err := r.dial(n)
	if err != nil {
		return nil, err
	}
	for _, s := range sockets {
		list = append(list, &socketShopper{socket: s})
	}
	return list, nil
}
