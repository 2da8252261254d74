package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

var (
	//go:embed openapi.json
	openAPI []byte // OpenAPI 3.1, of REST
	//go:embed asyncapi.json
	asyncAPI []byte // AsyncAPI 3, of the WebSocket
	//go:embed docs.html
	docsHTML string // template of the page made from both
)

func serveDocument(text []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Access-Control-Allow-Origin", "*") // so that any viewer may load it
		w.Write(text)
	}
}

// docs is GET /docs: both documents as one page that needs nothing from elsewhere.
func (s *Server) docs(w http.ResponseWriter, r *http.Request) {
	page, err := docsPage()
	if err != nil {
		s.problem(w, fmt.Errorf("docs: %w", err))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.Write(page)
}

// docsPage is made once, when it is first asked for.
var docsPage = sync.OnceValues(func() ([]byte, error) {
	var page struct {
		REST   restDocument
		Socket socketDocument
	}
	if err := json.Unmarshal(openAPI, &page.REST); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(asyncAPI, &page.Socket); err != nil {
		return nil, err
	}
	t, err := template.New("docs").Parse(docsHTML)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, page)
	return b.Bytes(), err
})

// A restDocument is what the page shows of OpenAPI.
type restDocument struct {
	Info       struct{ Title, Version, Description string }
	Tags       []struct{ Name string }
	Paths      map[string]restPath
	Components struct{ Schemas map[string]docSchema }
}

type restPath struct {
	Parameters             []docParameter
	Get, Put, Post, Delete *restOperation
}

type restOperation struct {
	Path, Method         string `json:"-"`
	Summary, Description string
	Tags                 []string
	Parameters           []docParameter
	RequestBody          *docContent
	Responses            map[string]docContent
}

type docParameter struct {
	Name, In, Description string
	Required              bool
	Schema                docSchema
}

type docContent struct {
	Description string
	Content     map[string]struct{ Schema docSchema }
}

// Schema is that of the one media type there is.
func (c docContent) Schema() *docSchema {
	for _, media := range c.Content {
		return &media.Schema
	}
	return nil
}

// Operations are those of a tag, by path.
func (d restDocument) Operations(tag string) (all []*restOperation) {
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		p := d.Paths[path]
		for _, x := range []struct {
			method string
			op     *restOperation
		}{{"GET", p.Get}, {"PUT", p.Put}, {"POST", p.Post}, {"DELETE", p.Delete}} {
			if x.op != nil && slices.Contains(x.op.Tags, tag) {
				x.op.Path, x.op.Method = path, x.method
				x.op.Parameters = slices.Concat(p.Parameters, x.op.Parameters)
				all = append(all, x.op)
			}
		}
	}
	return all
}

// A socketDocument is what the page shows of AsyncAPI.
type socketDocument struct {
	Info       struct{ Description string }
	Operations map[string]struct{ Action string }
	Components struct{ Messages map[string]docMessage }
}

type docMessage struct {
	Name, Summary string
	Payload       docSchema
}

// Messages are those that the server receives or sends.
func (d socketDocument) Messages(action string) (all []docMessage) {
	for _, name := range slices.Sorted(maps.Keys(d.Operations)) {
		if d.Operations[name].Action == action {
			all = append(all, d.Components.Messages[name])
		}
	}
	return all
}

// A docSchema is what the page shows of a JSON Schema.
type docSchema struct {
	Ref              string `json:"$ref"`
	Type             any
	Description      string
	Properties       map[string]docSchema
	Required         []string
	Items            *docSchema
	OneOf            []docSchema
	Enum             []string
	Const            any
	Default          any
	Minimum          *float64
	Maximum          *float64
	ExclusiveMinimum *float64
	ExclusiveMaximum *float64
	Pattern          string
	Examples         []json.RawMessage
}

// Link is the name of the shared schema that s stands for, "" for none.
func (s docSchema) Link() string { return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:] }

// Needs tells whether a member must be there.
func (s docSchema) Needs(member string) bool { return slices.Contains(s.Required, member) }

// Inner is the schema whose members are worth a table: s, or what s is a list of.
func (s docSchema) Inner() *docSchema {
	for s.Items != nil {
		s = *s.Items
	}
	if len(s.Properties) == 0 {
		return nil
	}
	return &s
}

// Kind is the type in words, with its range.
func (s docSchema) Kind() string {
	var kind string
	switch {
	case s.Ref != "":
		return s.Link()
	case s.Const != nil:
		return fmt.Sprintf("%q", s.Const)
	case s.Items != nil:
		return "list of " + s.Items.Kind()
	case len(s.OneOf) > 0:
		var kinds []string
		for _, one := range s.OneOf {
			kinds = append(kinds, one.Kind())
		}
		return strings.Join(kinds, " or ")
	case len(s.Enum) > 0:
		return strings.Join(s.Enum, ", ")
	default:
		if list, ok := s.Type.([]any); ok {
			kind = fmt.Sprint(list[0], " or ", list[1])
		} else if kind, ok = s.Type.(string); !ok {
			kind = "any"
		}
	}
	bound := func(word string, f *float64) {
		if f != nil {
			kind += fmt.Sprintf(", %s %v", word, *f)
		}
	}
	bound("≥", s.Minimum)
	bound(">", s.ExclusiveMinimum)
	bound("≤", s.Maximum)
	bound("<", s.ExclusiveMaximum)
	if s.Default != nil {
		kind += fmt.Sprintf(", default %v", s.Default)
	}
	return kind
}
