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

func TestOpenWithTLSOfAPlainPort(t *testing.T) {
	addr := redistest.Single(t).Addr()
	_, err := redisconn.Open(within(t, 5*time.Second), redisconn.Config{URL: "rediss://:s3cret@" + addr})
	if want := addr + " did not answer in TLS, which REDIS_TLS or rediss:// in REDIS_URL asks for"; !errors.Is(err, dray.ErrUnavailable) ||
		!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("Open() = %v, want ErrUnavailable and %q", err, want)
	}
}
