package main

import (
	"context"
	"fmt"

	"dray/client"
)

const defaultURL = "ws://127.0.0.1:8080/v1/ws"

// clientFlags say which server a command talks to.
type clientFlags struct {
	URL   string `name:"url" help:"WebSocket of the server." default:"ws://127.0.0.1:8080/v1/ws" env:"DRAY_URL"`
	Token string `help:"Bearer token to present." env:"DRAY_TOKEN"`
}

func (c *clientFlags) dial(ctx context.Context, config client.Config) (*client.Client, error) {
	config.URL, config.Token = c.URL, c.Token
	cl, err := client.Dial(ctx, config)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w (the server is named by --url or DRAY_URL; dray serve or dray demo starts one)", err)
	}
	return cl, err
}
