package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dray"
)

// base is where REST begins at the server of this WebSocket.
func (s socketURL) base() string {
	t := strings.TrimSuffix(string(s), socketPath)
	return "http" + strings.TrimPrefix(t, "ws")
}

const restTimeout = 30 * time.Second // of a request, the server's own limit and the way there and back

// A restCall is a request to the server.
type restCall struct {
	method string
	path   []string // each is escaped
	query  url.Values
	header map[string]string // those with a value are sent
	body   any               // nil sends none
}

// ask makes a request and reads the answer into out, where that is not nil. A refusal is a *dray.Error.
func (c *clientFlags) ask(a *app, call restCall, out any) error {
	address, err := url.Parse(c.URL.base())
	if err != nil {
		return err
	}
	address = address.JoinPath(escape(call.path)...)
	address.RawQuery = call.query.Encode()
	var body io.Reader
	if call.body != nil {
		text, err := json.Marshal(call.body)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(a.ctx, call.method, address.String(), body)
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for name, value := range call.header {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	answer, err := (&http.Client{Timeout: restTimeout}).Do(r)
	if err != nil {
		if a.ctx.Err() != nil {
			return errInterrupted
		}
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // which names the address without what may be secret in it
		}
		return fmt.Errorf("%s: %w (the server is named by --url or DRAY_URL; dray serve starts one)", address.Host, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer.StatusCode/100 != 2 {
		err := refusal(answer.Status, text)
		if answer.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("/%s: %w", strings.Join(call.path, "/"), err) // the server does not say what is not there
		}
		return err
	}
	if out == nil {
		return nil
	}
	if err := dray.Unmarshal(text, out); err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	return nil
}

func escape(path []string) []string {
	escaped := make([]string, len(path))
	for i, part := range path {
		escaped[i] = url.PathEscape(part)
	}
	return escaped
}

// refusal reads a problem document.
func refusal(status string, text []byte) error {
	var p struct {
		Code    dray.Code     `json:"code"`
		Detail  string        `json:"detail"`
		Details []dray.Detail `json:"details"`
	}
	if err := dray.Unmarshal(text, &p); err != nil || p.Code == "" {
		return fmt.Errorf("the server answered %s", status)
	}
	return &dray.Error{Code: p.Code, Message: p.Detail, Details: p.Details}
}
