package httpapi_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"dray"
)

func document(t *testing.T, n *node, path string) (doc map[string]any) {
	t.Helper()
	res, body := n.do("GET", path, "")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("GET %s = %d %s", path, res.StatusCode, res.Header.Get("Content-Type"))
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	checkReferences(t, path, doc, doc)
	return doc
}

// at follows names into a document; nil where one is missing.
func at(doc any, names ...string) any {
	for _, name := range names {
		m, _ := doc.(map[string]any)
		doc = m[name]
	}
	return doc
}

func checkReferences(t *testing.T, path string, doc, part any) {
	t.Helper()
	switch part := part.(type) {
	case map[string]any:
		if ref, ok := part["$ref"].(string); ok && at(doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...) == nil {
			t.Errorf("%s: nothing at %s", path, ref)
		}
		for _, v := range part {
			checkReferences(t, path, doc, v)
		}
	case []any:
		for _, v := range part {
			checkReferences(t, path, doc, v)
		}
	}
}

// checkCodes demands every code of the contract, and no other.
func checkCodes(t *testing.T, path string, doc any) {
	t.Helper()
	var got []dray.Code
	list, _ := at(doc, "components", "schemas", "Code", "enum").([]any)
	for _, code := range list {
		got = append(got, dray.Code(code.(string)))
	}
	want := dray.Codes()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s has the codes %v, want %v", path, got, want)
	}
}

func TestOpenAPIHasEveryRouteAndCode(t *testing.T) {
	n := start(t, nil)
	doc := document(t, n, "/openapi.json")
	checkCodes(t, "/openapi.json", doc)
	served := map[string]bool{}
	err := chi.Walk(n.api.Handler().(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		served[strings.ToLower(method)+" "+route] = true
		if at(doc, "paths", route, strings.ToLower(method), "responses") == nil {
			t.Errorf("%s %s is served and not in the document", method, route)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" && !served[method+" "+path] {
				t.Errorf("%s %s is in the document and not served", method, path)
			}
		}
	}
}

func TestAsyncAPIHasEveryMessageAndCode(t *testing.T) {
	doc := document(t, start(t, nil), "/asyncapi.json")
	checkCodes(t, "/asyncapi.json", doc)
	// The stories are what is really sent and received.
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	typ := regexp.MustCompile(`(?m)^\w+ ([<>]) \{"type":"(\w+)"`)
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".txt") {
			continue
		}
		text, err := os.ReadFile("testdata/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range typ.FindAllStringSubmatch(string(text), -1) {
			action := map[string]string{"<": "send", ">": "receive"}[m[1]]
			if m[2] == "fly" { // bad on purpose
				continue
			}
			if at(doc, "operations", m[2], "action") != action || at(doc, "channels", "ws", "messages", m[2]) == nil {
				t.Errorf("%s: %s is not in the document as one to %s", file.Name(), m[2], action)
			}
		}
	}
}

func TestDocsPageNeedsNothingFromElsewhere(t *testing.T) {
	res, body := start(t, nil).do("GET", "/docs", "")
	if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("GET /docs = %d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	for _, want := range []string{"/v1/drivers/{driver}/trail", "intervalMs", "4008", `id="Driver"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not hold %s", want)
		}
	}
	if found := regexp.MustCompile(`(src|href)="(https?:)?//[^"]*"|<script`).FindString(body); found != "" {
		t.Errorf("the page asks elsewhere: %s", found)
	}
}
