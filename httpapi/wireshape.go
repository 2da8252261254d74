package httpapi

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
)

// wireShape is the shape of a subscription as JSON holds it.
type wireShape struct {
	Nearby  jsontext.Value `json:"nearby"`
	Bounds  jsontext.Value `json:"bounds"`
	Area    jsontext.Value `json:"area"`
	Cells   jsontext.Value `json:"cells"`
	Drivers jsontext.Value `json:"drivers"`
	Stock   jsontext.Value `json:"stock"`
}

// shape reads the one shape that is there; nil where there is none. A member that is missing,
// null or no finite number is ErrBadRequest, a list that is too long ErrTooLarge.
func (w *wireShape) shape() (*dray.Shape, error) {
	var (
		s     dray.Shape
		err   error
		found = 0
	)
	for _, member := range [...]struct {
		value jsontext.Value
		read  func(jsontext.Value, *dray.Shape) error
	}{
		{w.Nearby, readNearbyShape},
		{w.Bounds, readBounds},
		{w.Area, readArea},
		{w.Cells, readCells},
		{w.Drivers, readDrivers},
		{w.Stock, readStock},
	} {
		if absent(member.value) {
			continue
		}
		if found++; found > 1 {
			return nil, dray.FieldError(dray.CodeBadRequest, "nearby", "exactly one shape")
		}
		err = member.read(member.value, &s)
	}
	if err != nil || found == 0 {
		return nil, err
	}
	return &s, nil
}

func readNearbyShape(v jsontext.Value, s *dray.Shape) (err error) {
	s.Nearby, err = readCircle("nearby", v)
	return err
}

func readCircle(field string, v jsontext.Value) (*dray.Circle, error) {
	var w struct {
		Latitude  jsontext.Value `json:"latitude"`
		Longitude jsontext.Value `json:"longitude"`
		Radius    jsontext.Value `json:"radius"`
	}
	if err := readObject(field, v, &w); err != nil {
		return nil, err
	}
	c := &dray.Circle{}
	var ok bool
	if c.Latitude, ok = number(w.Latitude); !ok {
		return nil, notNumber(field + ".latitude")
	}
	if c.Longitude, ok = number(w.Longitude); !ok {
		return nil, notNumber(field + ".longitude")
	}
	if !c.Center().Valid() {
		return nil, dray.FieldError(dray.CodeBadRequest, field, "must be within ±%v and ±180 degrees", dray.MaxLatitude)
	}
	radius, err := readRadius(w.Radius)
	c.Radius = radius
	return c, err
}

func readBounds(v jsontext.Value, s *dray.Shape) error {
	var w struct {
		South jsontext.Value `json:"south"`
		West  jsontext.Value `json:"west"`
		North jsontext.Value `json:"north"`
		East  jsontext.Value `json:"east"`
	}
	if err := readObject("bounds", v, &w); err != nil {
		return err
	}
	b := &dray.Bounds{}
	var ok bool
	if b.South, ok = number(w.South); !ok {
		return notNumber("bounds.south")
	}
	if b.West, ok = number(w.West); !ok {
		return notNumber("bounds.west")
	}
	if b.North, ok = number(w.North); !ok {
		return notNumber("bounds.north")
	}
	if b.East, ok = number(w.East); !ok {
		return notNumber("bounds.east")
	}
	s.Bounds = b
	return nil
}

// readArea reads a GeoJSON Polygon; the altitudes that RFC 7946 lets stand in its points are
// dropped.
func readArea(v jsontext.Value, s *dray.Shape) error {
	var w struct {
		Type        string               `json:"type"`
		Coordinates [][][]jsontext.Value `json:"coordinates"`
	}
	if readObject("area", v, &w) != nil || w.Type != "Polygon" || len(w.Coordinates) == 0 {
		return dray.FieldError(dray.CodeBadRequest, "area", "must be a GeoJSON Polygon")
	}
	points := 0
	for _, ring := range w.Coordinates {
		points += len(ring)
	}
	if points > dray.MaxPolygonPoints {
		return dray.FieldError(dray.CodeTooLarge, "area", "at most %d points", dray.MaxPolygonPoints)
	}
	area := &dray.Polygon{Type: w.Type, Coordinates: make([][][2]float64, len(w.Coordinates))}
	for i, ring := range w.Coordinates {
		for _, point := range ring {
			if len(point) != 2 && len(point) != 3 {
				return dray.FieldError(dray.CodeBadRequest, "area", "a point is [longitude, latitude]")
			}
			longitude, ok := number(point[0])
			latitude, ok2 := number(point[1])
			if _, ok3 := number(point[len(point)-1]); !ok || !ok2 || !ok3 {
				return notNumber("area.coordinates")
			}
			area.Coordinates[i] = append(area.Coordinates[i], [2]float64{longitude, latitude})
		}
	}
	s.Area = area
	return nil
}

func readCells(v jsontext.Value, s *dray.Shape) (err error) {
	if s.Cells, err = readStrings("cells", v, dray.MaxCells); err != nil {
		return err
	}
	for _, cell := range s.Cells {
		if _, err := strconv.ParseUint(cell, 16, 64); err != nil || len(cell) > 16 {
			return dray.FieldError(dray.CodeBadRequest, "cells", "must be H3 indexes in hexadecimal")
		}
	}
	return nil
}

func readDrivers(v jsontext.Value, s *dray.Shape) (err error) {
	s.Drivers, err = readIDs("drivers", v, dray.MaxDrivers)
	return err
}

func readStock(v jsontext.Value, s *dray.Shape) error {
	var w struct {
		Location jsontext.Value `json:"location"`
		SKUs     jsontext.Value `json:"skus"`
		Low      jsontext.Value `json:"low"`
	}
	if err := readObject("stock", v, &w); err != nil {
		return err
	}
	stock := &dray.StockShape{}
	if readString("stock.location", w.Location, &stock.Location) != nil || !dray.ValidID(stock.Location) {
		return dray.FieldError(dray.CodeBadRequest, "stock.location", "must be an id of 1 to %d bytes", dray.MaxID)
	}
	if !absent(w.SKUs) {
		skus, err := readIDs("stock.skus", w.SKUs, dray.MaxSKUs)
		if err != nil {
			return err
		}
		stock.SKUs = skus
	}
	if !absent(w.Low) {
		low, ok := integer(w.Low)
		if !ok || low < 1 || low > dray.MaxQuantity {
			return dray.FieldError(dray.CodeBadRequest, "stock.low", "must be an integer from 1 to %d", dray.MaxQuantity)
		}
		stock.Low = low
	}
	s.Stock = stock
	return nil
}

func readIDs(field string, v jsontext.Value, most int) ([]string, error) {
	ids, err := readStrings(field, v, most)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if !dray.ValidID(id) {
			return nil, dray.FieldError(dray.CodeBadRequest, field, "ids are 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxID)
		}
	}
	return ids, nil
}

func readObject(field string, v jsontext.Value, w any) error {
	if v.Kind() != '{' || dray.Unmarshal(v, w) != nil {
		return dray.FieldError(dray.CodeBadRequest, field, "must be an object")
	}
	return nil
}

func notNumber(field string) error {
	return dray.FieldError(dray.CodeBadRequest, field, "must be a finite number")
}
