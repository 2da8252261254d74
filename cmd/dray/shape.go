package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"dray"
)

// shapeFlags say what to watch.
type shapeFlags struct {
	Nearby  string   `help:"A circle; the radius in metres. Default: ${demo_place}, the place of dray demo." placeholder:"LAT,LON,RADIUS" xor:"shape"`
	Bounds  string   `help:"A box of degrees; west > east crosses the antimeridian." placeholder:"S,W,N,E" xor:"shape"`
	Area    string   `help:"A GeoJSON file with one Polygon." type:"existingfile" placeholder:"FILE" xor:"shape"`
	Cells   []string `help:"H3 cells." placeholder:"CELL" xor:"shape"`
	Drivers []string `help:"Drivers by id." placeholder:"ID" xor:"shape"`
	Stock   string   `help:"The stock of a location." placeholder:"LOCATION" xor:"shape"`
	SKU     []string `name:"sku" help:"Of the stock only these." placeholder:"SKU"`
	Low     int64    `help:"Of the stock: a SKU of which so many are left, or fewer, is low." placeholder:"N"`
	Filter  []string `help:"Only drivers with this attribute. Several values of one key: any of them; several keys: all." placeholder:"KEY=VALUE" sep:"none"`
}

// shape is the one that was named, and its middle, where it has one.
func (f *shapeFlags) shape() (s dray.Shape, middle *dray.Point, err error) {
	if f.Stock == "" && (len(f.SKU) > 0 || f.Low != 0) {
		return s, nil, usagef("--sku and --low are of the stock of a location: name it with --stock")
	}
	switch {
	case f.Stock != "":
		s.Stock = &dray.StockShape{Location: f.Stock, SKUs: f.SKU, Low: f.Low}
	case f.Bounds != "":
		n, err := numbers("--bounds", f.Bounds, 4)
		if err != nil {
			return s, nil, err
		}
		s.Bounds = &dray.Bounds{South: n[0], West: n[1], North: n[2], East: n[3]}
		if n[1] <= n[3] {
			middle = &dray.Point{Latitude: (n[0] + n[2]) / 2, Longitude: (n[1] + n[3]) / 2}
		}
	case f.Area != "":
		s.Area, err = readPolygon(f.Area)
	case len(f.Cells) > 0:
		s.Cells = f.Cells
	case len(f.Drivers) > 0:
		s.Drivers = f.Drivers
	default:
		text := f.Nearby
		if text == "" {
			text = austin.String()
		}
		n, err := numbers("--nearby", text, 3)
		if err != nil {
			return s, nil, err
		}
		s.Nearby = &dray.Circle{Latitude: n[0], Longitude: n[1], Radius: n[2]}
		p := s.Nearby.Center()
		middle = &p
	}
	return s, middle, err
}

func numbers(flag, text string, n int) ([]float64, error) {
	parts := strings.Split(text, ",")
	if len(parts) != n {
		return nil, usagef("%s %q: must be %d numbers with commas between, as --help shows", flag, text, n)
	}
	out := make([]float64, n)
	for i, part := range parts {
		var err error
		if out[i], err = strconv.ParseFloat(strings.TrimSpace(part), 64); err != nil || out[i]-out[i] != 0 {
			return nil, usagef("%s: %q is not a number", flag, part)
		}
	}
	return out, nil
}

// readPolygon finds the one Polygon of a GeoJSON file, which may stand in a Feature or in a
// FeatureCollection of one.
func readPolygon(file string) (*dray.Polygon, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	type geometry struct {
		Type        string         `json:"type"`
		Coordinates [][][2]float64 `json:"coordinates"`
	}
	var g struct {
		Type        string         `json:"type"`
		Coordinates [][][2]float64 `json:"coordinates"`
		Geometry    geometry       `json:"geometry"`
		Features    []struct {
			Geometry geometry `json:"geometry"`
		} `json:"features"`
	}
	if err := dray.Unmarshal(text, &g); err != nil {
		return nil, usagef("--area %s: not GeoJSON with a Polygon of [longitude, latitude]", file)
	}
	found := geometry{g.Type, g.Coordinates}
	switch {
	case g.Type == "Feature":
		found = g.Geometry
	case g.Type == "FeatureCollection" && len(g.Features) == 1:
		found = g.Features[0].Geometry
	}
	if found.Type != "Polygon" {
		return nil, usagef("--area %s: must hold one Polygon, not %q", file, found.Type)
	}
	return &dray.Polygon{Type: found.Type, Coordinates: found.Coordinates}, nil
}

func (f *shapeFlags) filter() (dray.Filter, error) {
	if len(f.Filter) == 0 {
		return nil, nil
	}
	filter := dray.Filter{}
	for _, text := range f.Filter {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usagef("--filter %q: must be KEY=VALUE", text)
		}
		filter[key] = append(filter[key], value)
	}
	return filter, nil
}

// count is n of something, in words.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// describe is s in a few words.
func describe(s dray.Shape) string {
	switch {
	case s.Stock != nil:
		return "at " + s.Stock.Location
	case s.Nearby != nil:
		return fmt.Sprintf("within %.0f m of %v,%v", s.Nearby.Radius, s.Nearby.Latitude, s.Nearby.Longitude)
	case s.Bounds != nil:
		return fmt.Sprintf("within %v,%v,%v,%v", s.Bounds.South, s.Bounds.West, s.Bounds.North, s.Bounds.East)
	case s.Area != nil:
		return "within the area"
	case len(s.Cells) > 0:
		return "in " + count(len(s.Cells), "cell")
	}
	return "of " + count(len(s.Drivers), "id")
}
