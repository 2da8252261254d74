package redisconn_test

import (
	"crypto/tls"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"dray/redisconn"
)

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
}

func TestFromLookup(t *testing.T) {
	two := []redisconn.Node{{Host: "a", Port: 1}, {Host: "::1", Port: 2}}
	twoJSON := `[{"host":"a","port":1},{"host":"::1","port":2}]`
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	for name, test := range map[string]struct {
		env  map[string]string
		mode redisconn.Mode
		want redisconn.Config
	}{
		"nothing is embedded":        {nil, redisconn.Embedded, redisconn.Config{}},
		"empty is nothing":           {map[string]string{"REDIS_URL": "", "REDIS_DB": ""}, redisconn.Embedded, redisconn.Config{}},
		"a prefix alone is embedded": {map[string]string{"REDIS_KEY_PREFIX": "shop:"}, redisconn.Embedded, redisconn.Config{KeyPrefix: "shop:"}},
		"host and the rest": {
			map[string]string{"REDIS_HOST": "h", "REDIS_PORT": "7", "REDIS_USERNAME": "u", "REDIS_PASSWORD": " p ", "REDIS_DB": "2", "REDIS_TLS": "true"},
			redisconn.Single, redisconn.Config{Host: "h", Port: 7, Username: "u", Password: " p ", DB: 2, TLS: secure},
		},
		"URL":        {map[string]string{"REDIS_URL": "rediss://u:p@h/1"}, redisconn.Single, redisconn.Config{URL: "rediss://u:p@h/1"}},
		"port alone": {map[string]string{"REDIS_PORT": "7"}, redisconn.Single, redisconn.Config{Port: 7}},
		"Sentinel": {
			map[string]string{"REDIS_SENTINELS": twoJSON, "REDIS_SENTINEL_NAME": "m"},
			redisconn.Sentinel, redisconn.ForProduction("m", two...),
		},
		"Cluster": {map[string]string{"REDIS_CLUSTER_NODES": twoJSON}, redisconn.Cluster, redisconn.ForCluster(two...)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := redisconn.FromLookup(lookup(test.env))
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("FromLookup() = %+v, %v, want %+v", got, err, test.want)
			}
			if got.Mode() != test.mode {
				t.Errorf("Mode() = %v, want %v", got.Mode(), test.mode)
			}
		})
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	node := `[{"host":"h","port":6379}]`
	for name, test := range map[string]struct {
		env  map[string]string
		want []string // all in the error
	}{
		"URL and host":               {map[string]string{"REDIS_URL": "redis://h", "REDIS_HOST": "h"}, []string{"REDIS_URL", "REDIS_HOST"}},
		"URL and port":               {map[string]string{"REDIS_URL": "redis://h", "REDIS_PORT": "1"}, []string{"REDIS_URL", "REDIS_PORT"}},
		"URL and Cluster":            {map[string]string{"REDIS_URL": "redis://h", "REDIS_CLUSTER_NODES": node}, []string{"REDIS_URL", "REDIS_CLUSTER_NODES"}},
		"Sentinel and Cluster":       {map[string]string{"REDIS_SENTINELS": node, "REDIS_CLUSTER_NODES": node}, []string{"REDIS_SENTINELS", "REDIS_CLUSTER_NODES"}},
		"host and Sentinel":          {map[string]string{"REDIS_HOST": "h", "REDIS_SENTINELS": node}, []string{"REDIS_HOST", "REDIS_SENTINELS"}},
		"database and Cluster":       {map[string]string{"REDIS_DB": "1", "REDIS_CLUSTER_NODES": node}, []string{"REDIS_DB"}},
		"password twice":             {map[string]string{"REDIS_URL": "redis://:s3cret@h", "REDIS_PASSWORD": "s3cret"}, []string{"REDIS_PASSWORD"}},
		"database twice":             {map[string]string{"REDIS_URL": "redis://h/1", "REDIS_DB": "2"}, []string{"REDIS_DB"}},
		"user without password":      {map[string]string{"REDIS_HOST": "h", "REDIS_USERNAME": "u"}, []string{"REDIS_USERNAME"}},
		"TLS and a plain URL":        {map[string]string{"REDIS_URL": "redis://h", "REDIS_TLS": "1"}, []string{"REDIS_TLS"}},
		"no TLS and a TLS URL":       {map[string]string{"REDIS_URL": "rediss://h", "REDIS_TLS": "0"}, []string{"REDIS_TLS"}},
		"TLS that is no word":        {map[string]string{"REDIS_HOST": "h", "REDIS_TLS": "maybe"}, []string{"REDIS_TLS"}},
		"password without server":    {map[string]string{"REDIS_PASSWORD": "s3cret"}, []string{"REDIS_PASSWORD", "REDIS_HOST"}},
		"database without server":    {map[string]string{"REDIS_DB": "1"}, []string{"REDIS_DB"}},
		"name without Sentinels":     {map[string]string{"REDIS_HOST": "h", "REDIS_SENTINEL_NAME": "m"}, []string{"REDIS_SENTINEL_NAME"}},
		"port beyond":                {map[string]string{"REDIS_HOST": "h", "REDIS_PORT": "65536"}, []string{"REDIS_PORT"}},
		"port 0":                     {map[string]string{"REDIS_HOST": "h", "REDIS_PORT": "0"}, []string{"REDIS_PORT"}},
		"port of Kubernetes":         {map[string]string{"REDIS_PORT": "tcp://10.0.0.1:6379"}, []string{"REDIS_PORT", "Kubernetes"}},
		"database that is no number": {map[string]string{"REDIS_HOST": "h", "REDIS_DB": "x"}, []string{"REDIS_DB"}},
		"negative database":          {map[string]string{"REDIS_HOST": "h", "REDIS_DB": "-1"}, []string{"REDIS_DB"}},
		"Sentinels not JSON":         {map[string]string{"REDIS_SENTINELS": "h:1"}, []string{"REDIS_SENTINELS"}},
		"Sentinels empty":            {map[string]string{"REDIS_SENTINELS": "[]"}, []string{"REDIS_SENTINELS"}},
		"more after the list":        {map[string]string{"REDIS_SENTINELS": node + "x"}, []string{"REDIS_SENTINELS"}},
		"unknown field":              {map[string]string{"REDIS_CLUSTER_NODES": `[{"host":"h","port":1,"prot":2}]`}, []string{"REDIS_CLUSTER_NODES"}},
		"node without port":          {map[string]string{"REDIS_CLUSTER_NODES": `[{"host":"h"}]`}, []string{"REDIS_CLUSTER_NODES", "port"}},
		"node without host":          {map[string]string{"REDIS_CLUSTER_NODES": `[{"port":1}]`}, []string{"REDIS_CLUSTER_NODES", "host"}},
		"prefix with a brace":        {map[string]string{"REDIS_KEY_PREFIX": "a{b}"}, []string{"REDIS_KEY_PREFIX"}},
		"prefix with a space":        {map[string]string{"REDIS_KEY_PREFIX": "a b"}, []string{"REDIS_KEY_PREFIX"}},
		"prefix with a control":      {map[string]string{"REDIS_KEY_PREFIX": "a\x00b"}, []string{"REDIS_KEY_PREFIX"}},
		"prefix too long":            {map[string]string{"REDIS_KEY_PREFIX": strings.Repeat("a", 65)}, []string{"REDIS_KEY_PREFIX"}},
		"URL of another kind":        {map[string]string{"REDIS_URL": "http://u:s3cret@h"}, []string{"REDIS_URL"}},
		"URL that is none":           {map[string]string{"REDIS_URL": "redis://:s3cret%zz@h"}, []string{"REDIS_URL"}},
		"URL with a bad port":        {map[string]string{"REDIS_URL": "redis://:s3cret@h:99999"}, []string{"REDIS_URL", "port"}},
		"URL with a bad database":    {map[string]string{"REDIS_URL": "redis://:s3cret@h/x"}, []string{"REDIS_URL", "database"}},
		"URL with options":           {map[string]string{"REDIS_URL": "redis://:s3cret@h?pool_size=3"}, []string{"REDIS_URL"}},
		"host with a port":           {map[string]string{"REDIS_HOST": "u:s3cret@h"}, []string{"REDIS_HOST"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := redisconn.FromLookup(lookup(test.env))
			if err == nil {
				t.Fatalf("FromLookup(%v) = nil, want an error", test.env)
			}
			for _, word := range test.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("FromLookup(%v) = %v, want %q in it", test.env, err, word)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error tells the password: %v", err)
			}
		})
	}
}

func TestDotEnv(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".env")
	text := "\ufeff# a comment\r\n" +
		"REDIS_HOST = file # the rest is a comment\r\n" +
		"export REDIS_PORT=6380\n" +
		`REDIS_PASSWORD="p\"a#s\\s\n"` + "\n" +
		"REDIS_USERNAME='u # \\n' # comment\n" +
		"REDIS_KEY_PREFIX=a#b\n" +
		"EMPTY=\n\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REDIS_PORT", "1234")
	env, err := redisconn.Env(path)
	if err != nil {
		t.Fatalf("Env() = %v", err)
	}
	got := map[string]string{}
	for _, name := range []string{"REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_USERNAME", "REDIS_KEY_PREFIX", "EMPTY"} {
		got[name], _ = env(name)
	}
	want := map[string]string{
		"REDIS_HOST": "file", "REDIS_PORT": "1234", "REDIS_PASSWORD": "p\"a#s\\s\n",
		"REDIS_USERNAME": "u # \\n", "REDIS_KEY_PREFIX": "a#b", "EMPTY": "",
	}
	if !maps.Equal(got, want) {
		t.Errorf("Env() = %q, want %q", got, want)
	}
	if _, ok := env("NOT_THERE"); ok {
		t.Error("Env() knows a name that is nowhere")
	}
}

func TestFromEnvReadsDotEnv(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB",
		"REDIS_TLS", "REDIS_KEY_PREFIX", "REDIS_SENTINELS", "REDIS_SENTINEL_NAME", "REDIS_CLUSTER_NODES"} {
		t.Setenv(name, "")
	}
	if c, err := redisconn.FromEnv(); err != nil || c.Mode() != redisconn.Embedded {
		t.Errorf("FromEnv() without file = %v, %v, want embedded", c.Mode(), err)
	}
	for text, want := range map[string]string{"REDIS_HOST=elsewhere": "", "REDIS_HOST": "line 1", `A="s3cret`: "quote", `A='x' y`: "quote"} {
		if err := os.WriteFile(".env", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := redisconn.FromEnv()
		if want == "" {
			if err != nil || c.Host != "elsewhere" {
				t.Errorf("FromEnv(%q) = %+v, %v, want host elsewhere", text, c, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("FromEnv(%q) = %v, want %q in it", text, err, want)
		}
	}
}

func FuzzDotEnv(f *testing.F) {
	f.Add("A=b\nC='d'\n")
	f.Add("export A=\"\\\"\"")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if env, err := redisconn.Env(path); err == nil {
			env("A")
		}
	})
}
