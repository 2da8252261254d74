package httpapi

import (
	"context"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"dray"
	"dray/realtime/location"
	"dray/realtime/watch"
)

type driverRequest struct{ driver string }

func (in *driverRequest) read(q *request) (err error) {
	in.driver, err = q.id("driver")
	return err
}

type driverReply struct{ driver *dray.Driver }

func (out driverReply) AppendJSON(b []byte) []byte { return out.driver.AppendJSON(b) }

// getDriver is GET /v1/drivers/{driver}.
func (s *Server) getDriver(ctx context.Context, who Caller, in driverRequest) (out driverReply, err error) {
	if !who.MayWatch() {
		return out, dray.ErrForbidden
	}
	d, live, err := s.locations.Last(ctx, in.driver)
	if err == nil && !live {
		err = dray.Errorf(dray.CodeNotFound, "the driver is not live")
	}
	if err == nil && s.claims != nil {
		var held map[string]time.Duration
		held, err = s.claims.Held(ctx, in.driver)
		d.Claimed = held[in.driver] > 0
	}
	return driverReply{&d}, err
}

// deleteDriver is DELETE /v1/drivers/{driver}.
func (s *Server) deleteDriver(ctx context.Context, who Caller, in driverRequest) (none, error) {
	if !who.MayPublish(in.driver) {
		return none{}, dray.ErrForbidden
	}
	return none{}, s.locations.Offline(ctx, in.driver)
}

type positionRequest struct{ position dray.Position }

func (in *positionRequest) read(q *request) error {
	driver, err := q.id("driver")
	if err != nil {
		return err
	}
	if err := q.body(&in.position); err != nil {
		return err
	}
	if in.position.Driver != "" && in.position.Driver != driver {
		return dray.FieldError(dray.CodeBadRequest, "driver", "is not the one in the path")
	}
	in.position.Driver = driver
	return nil
}

// A counts is what became of positions, as the ok of positions tells it.
type counts struct{ batch }

func (out *counts) AppendJSON(b []byte) []byte {
	return append(appendCounts(append(b, '{'), &out.batch), '}')
}

func (out *counts) add(r location.Result, index int, shown func(error) *dray.Error) {
	switch r.Outcome {
	case location.Stored:
		out.accepted++
	case location.Superseded:
		out.superseded++
	default:
		out.rejected = append(out.rejected, rejection{index, shown(r.Err)})
	}
}

// putPosition is PUT /v1/drivers/{driver}/position. A position that is refused is an error.
func (s *Server) putPosition(ctx context.Context, who Caller, in positionRequest) (*counts, error) {
	if !who.MayPublish(in.position.Driver) {
		return nil, dray.ErrForbidden
	}
	results, err := s.locations.Report(ctx, []dray.Position{in.position})
	if err != nil {
		return nil, err
	}
	if results[0].Outcome == location.Refused {
		return nil, results[0].Err
	}
	out := new(counts)
	out.add(results[0], 0, nil)
	return out, nil
}

type positionsRequest struct {
	positions []dray.Position
	index     []int
	rejected  []rejection
}

func (in *positionsRequest) read(q *request) error {
	var body struct {
		Positions jsontext.Value `json:"positions"`
	}
	if err := q.body(&body); err != nil {
		if body.Positions, err = cutBatch(q.text, &body); err != nil {
			return err
		}
	}
	var m message
	var d decoder
	if err := d.readPositions(body.Positions, &m); err != nil {
		return err
	}
	in.positions, in.index, in.rejected = m.positions, m.index, m.rejected
	return nil
}

// postPositions is POST /v1/positions. The positions are counted each by itself: one that
// is bad is rejected, and the others are taken.
func (s *Server) postPositions(ctx context.Context, who Caller, in positionsRequest) (*counts, error) {
	out := &counts{batch{rejected: in.rejected}}
	for i := len(in.positions) - 1; i >= 0; i-- {
		if !who.MayPublish(in.positions[i].Driver) {
			out.rejected = append(out.rejected, rejection{in.index[i], dray.ErrForbidden})
			in.positions, in.index = slices.Delete(in.positions, i, i+1), slices.Delete(in.index, i, i+1)
		}
	}
	if len(in.positions) == 0 {
		return out, nil
	}
	results, err := s.locations.Report(ctx, in.positions)
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		out.add(r, in.index[i], func(err error) *dray.Error { return s.shown(err, "positions") })
	}
	return out, nil
}

type nearbyRequest struct {
	center dray.Point
	radius float64
	limit  int
	filter dray.Filter
}

// read takes what is asked by name; every other parameter is an attribute.
func (in *nearbyRequest) read(q *request) (err error) {
	if in.center.Latitude, err = q.number("latitude"); err != nil {
		return err
	}
	if in.center.Longitude, err = q.number("longitude"); err != nil {
		return err
	}
	if in.radius, err = q.number("radius"); err != nil {
		return err
	}
	if in.limit, err = q.limit(dray.DefaultLimit, dray.MaxLimit); err != nil {
		return err
	}
	if len(q.query) > 0 {
		in.filter = dray.Filter(q.query)
	}
	return in.filter.Validate()
}

type nearbyReply []watch.Hit

func (out nearbyReply) AppendJSON(b []byte) []byte {
	return append(appendHits(append(b, '{'), out), '}')
}

// getNearby is GET /v1/drivers/nearby.
func (s *Server) getNearby(ctx context.Context, who Caller, in nearbyRequest) (nearbyReply, error) {
	if !who.MayWatch() {
		return nil, dray.ErrForbidden
	}
	hits, err := s.hub.Nearby(ctx, in.center, in.radius, in.limit, in.filter)
	return nearbyReply(hits), err
}

const defaultTrail = 100 // positions

type trailRequest struct {
	driver   string
	from, to time.Time
	limit    int
}

func (in *trailRequest) read(q *request) (err error) {
	if in.driver, err = q.id("driver"); err != nil {
		return err
	}
	if in.from, err = q.time("from"); err != nil {
		return err
	}
	if in.to, err = q.time("to"); err != nil {
		return err
	}
	if !in.from.IsZero() && !in.to.IsZero() && in.to.Before(in.from) {
		return dray.FieldError(dray.CodeBadRequest, "to", "is before from")
	}
	in.limit, err = q.limit(defaultTrail, dray.MaxLimit)
	return err
}

type trailReply []dray.Driver

func (out trailReply) AppendJSON(b []byte) []byte {
	b = append(b, `{"positions":[`...)
	for i := range out {
		if i > 0 {
			b = append(b, ',')
		}
		b = out[i].AppendJSON(b)
	}
	return append(b, `]}`...)
}

// getTrail is GET /v1/drivers/{driver}/trail.
func (s *Server) getTrail(ctx context.Context, who Caller, in trailRequest) (trailReply, error) {
	if !who.MayWatch() {
		return nil, dray.ErrForbidden
	}
	trail, err := s.locations.Trail(ctx, in.driver, in.from, in.to, in.limit)
	return trailReply(trail), err
}
