package httpapi

import (
	"context"
	"math"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
)

type placeRequest struct {
	location string
	at       dray.Point
}

func (in *placeRequest) read(q *request) (err error) {
	var w struct {
		Latitude  jsontext.Value `json:"latitude"`
		Longitude jsontext.Value `json:"longitude"`
	}
	if in.location, err = q.id("location"); err != nil {
		return err
	}
	if err := q.body(&w); err != nil {
		return err
	}
	var ok bool
	if in.at.Latitude, ok = number(w.Latitude); !ok || math.Abs(in.at.Latitude) > dray.MaxLatitude {
		return dray.FieldError(dray.CodeInvalidPosition, "latitude", "must be within ±%v degrees", dray.MaxLatitude)
	}
	if in.at.Longitude, ok = number(w.Longitude); !ok || math.Abs(in.at.Longitude) > 180 {
		return dray.FieldError(dray.CodeInvalidPosition, "longitude", "must be within ±180 degrees")
	}
	return nil
}

// putLocation is PUT /v1/locations/{location}.
func (s *Server) putLocation(ctx context.Context, who Caller, in placeRequest) (none, error) {
	if !who.MaySetStock() {
		return none{}, dray.ErrForbidden
	}
	return none{}, s.stock.PutLocation(ctx, in.location, in.at)
}

type locationRequest struct{ location string }

func (in *locationRequest) read(q *request) (err error) {
	in.location, err = q.id("location")
	return err
}

// deleteLocation is DELETE /v1/locations/{location}.
func (s *Server) deleteLocation(ctx context.Context, who Caller, in locationRequest) (none, error) {
	if !who.MaySetStock() {
		return none{}, dray.ErrForbidden
	}
	return none{}, s.stock.DeleteLocation(ctx, in.location)
}
