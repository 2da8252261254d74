// Package redisconn opens Redis, embedded, single, behind Sentinel or as a Cluster, behind one
// face, and makes three things sure: a script that changes something is sent once, a failure of
// Redis is [dray.ErrUnavailable] within the caller's deadline, and a subscription that may have
// lost a message says so.
//
//	client, err := redisconn.Open(ctx, redisconn.Config{}) // nothing configured: inside this process
//	err = client.Set(ctx, "greeting", "hello", time.Minute)
package redisconn
