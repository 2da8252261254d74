package redisconn_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// certificate writes a certificate for 127.0.0.1 and its key, and returns a pool that trusts it.
func certificate(t *testing.T) (certFile, keyFile string, trusted *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	trusted = x509.NewCertPool()
	trusted.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", keyBytes), trusted
}

func TestOpenWithTLS(t *testing.T) {
	cert, key, trusted := certificate(t)
	s := redistest.StartTLS(t, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	config := s.Config()
	config.TLS = &tls.Config{RootCAs: trusted}
	c := redistest.Open(t, config)
	ctx := within(t, 5*time.Second)
	if err := c.Set(ctx, "k", "v", time.Minute); err != nil {
		t.Errorf("Set() = %v", err)
	}
	if err := c.OpenFeed(0, &recorder{}).Subscribe(ctx, "ch"); err != nil {
		t.Errorf("Subscribe() = %v", err)
	}

	for name, config := range map[string]redisconn.Config{
		"unknown authority": {URL: "rediss://127.0.0.1:" + strconv.Itoa(s.Port())},
		"no TLS":            {Host: "127.0.0.1", Port: s.Port()},
	} {
		if _, err := redisconn.Open(ctx, config); !errors.Is(err, dray.ErrUnavailable) {
			t.Errorf("Open() with %s = %v, want ErrUnavailable", name, err)
		}
	}
}

// use does a little of everything over c: the pool, scripts, and a feed of each partition.
func use(t *testing.T, c *redisconn.Client) {
	t.Helper()
	ctx := within(t, 10*time.Second)
	for i := range 20 {
		if err := c.Set(ctx, strconv.Itoa(i), "v", time.Minute); err != nil {
			t.Fatalf("Set() = %v", err)
		}
	}
	for i := range c.Partitions() {
		script := redisconn.NewScript("get.lua", "return redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)")
		if err := c.Run(ctx, script, []string{c.Prefix() + "{" + c.Tag(i) + "}:k"}, i).Err(); err != nil {
			t.Fatalf("Run() in partition %d = %v", i, err)
		}
		if i < 8 {
			if err := c.OpenFeed(i, &recorder{}).Subscribe(ctx, c.Prefix()+"{"+c.Tag(i)+"}:ch"); err != nil {
				t.Fatalf("Subscribe() in partition %d = %v", i, err)
			}
		}
	}
}

func TestOpenSentinelWithTLS(t *testing.T) {
	cert, key, trusted := certificate(t)
	config := redistest.SentinelTLS(t, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no").Config()
	config.TLS = &tls.Config{RootCAs: trusted}
	use(t, redistest.Open(t, config))

	config.TLS = &tls.Config{} // which trusts neither the Sentinel nor the master
	if _, err := redisconn.Open(within(t, 5*time.Second), config); !errors.Is(err, dray.ErrUnavailable) {
		t.Errorf("Open() with an unknown authority = %v, want ErrUnavailable", err)
	}
}

func TestOpenClusterWithTLS(t *testing.T) {
	cert, key, trusted := certificate(t)
	var config redisconn.Config
	var nodes []*redis.Client
	for range 2 {
		s := redistest.StartTLS(t, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no",
			"--tls-cluster", "yes", "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort, "--cluster-node-timeout", "1000")
		config.ClusterNodes = append(config.ClusterNodes, s.Node())
		rdb := redis.NewClient(&redis.Options{Addr: s.Addr(), TLSConfig: &tls.Config{RootCAs: trusted}})
		defer rdb.Close()
		nodes = append(nodes, rdb)
	}
	ctx := within(t, 20*time.Second)
	do := func(rdb *redis.Client, args ...any) {
		t.Helper()
		if err := rdb.Do(ctx, args...).Err(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	do(nodes[0], "CLUSTER", "ADDSLOTSRANGE", 0, 8191)
	do(nodes[1], "CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
	do(nodes[1], "CLUSTER", "SET-CONFIG-EPOCH", 2)
	do(nodes[0], "CLUSTER", "MEET", "127.0.0.1", config.ClusterNodes[1].Port, nodes[1].ConfigGet(ctx, "cluster-port").Val()["cluster-port"])
	for _, rdb := range nodes {
		for !strings.Contains(rdb.ClusterInfo(ctx).Val(), "cluster_state:ok") {
			if ctx.Err() != nil {
				t.Fatalf("no Cluster: %s", rdb.ClusterInfo(t.Context()).Val())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	config.KeyPrefix = redistest.Prefix(t)
	config.TLS = &tls.Config{RootCAs: trusted}
	config.ClusterNodes = config.ClusterNodes[:1] // the other is found, and asked over TLS as well
	use(t, redistest.Open(t, config))
}

func TestOpenWithTLSOfAPlainPort(t *testing.T) {
	addr := redistest.Single(t).Addr()
	_, err := redisconn.Open(within(t, 5*time.Second), redisconn.Config{URL: "rediss://:s3cret@" + addr})
	if want := addr + " did not answer in TLS, which REDIS_TLS or rediss:// in REDIS_URL asks for"; !errors.Is(err, dray.ErrUnavailable) ||
		!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("Open() = %v, want ErrUnavailable and %q", err, want)
	}
}
