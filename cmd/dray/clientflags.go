package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"dray/client"
)

const (
	defaultURL = "ws://127.0.0.1:8080/v1/ws"
	socketPath = "/v1/ws"
)

// clientFlags say which server a command talks to.
type clientFlags struct {
	URL   socketURL `name:"url" help:"WebSocket of the server; host:port or http://host:port will do." default:"ws://127.0.0.1:8080/v1/ws" env:"DRAY_URL"`
	Token string    `help:"Bearer token to present." env:"DRAY_TOKEN"`
}

func (c *clientFlags) dial(ctx context.Context, config client.Config) (*client.Client, error) {
	config.URL, config.Token = string(c.URL), c.Token
	cl, err := client.Dial(ctx, config)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w (the server is named by --url or DRAY_URL; dray serve or dray demo starts one)", err)
	}
	return cl, err
}

// A socketURL is the URL of a server's WebSocket. As text it may be a web address or host:port
// too, and leave out the path, which is then /v1/ws.
type socketURL string

// UnmarshalText completes text.
func (s *socketURL) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	if t == "" {
		return errors.New("it is empty: a server is needed, like " + defaultURL)
	}
	if !strings.Contains(t, "://") {
		t = "ws://" + t
	}
	u, err := url.Parse(t)
	if err != nil { // its text would hold a password
		return errors.New("it is no URL like " + defaultURL)
	}
	switch u.Scheme {
	case "ws", "wss":
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	default:
		return fmt.Errorf("it begins with %s:// instead of ws://, wss://, http:// or https://", u.Scheme)
	}
	if u.Hostname() == "" {
		return errors.New("it names no host: a URL is like " + defaultURL)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = socketPath
	}
	*s = socketURL(u.String())
	return nil
}
