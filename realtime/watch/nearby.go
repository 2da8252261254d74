package watch

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/realtime/location"
)

// A Hit is one driver in the answer to a nearby question.
type Hit struct {
	Distance float64 // metres
	record   *record
}

// AppendJSON appends the Driver object of the contract, distance included, to the millimetre.
func (x Hit) AppendJSON(dst []byte) []byte {
	dst = append(dst, x.record.json[:len(x.record.json)-1]...)
	dst = append(dst, `,"distance":`...)
	return append(dray.AppendNumber(dst, math.Round(x.Distance*1000)/1000), '}')
}

// Driver is the hit as a value.
func (x Hit) Driver() (d dray.Driver, err error) {
	err = d.UnmarshalJSON(x.record.json)
	d.Distance = x.Distance
	return d, err
}

// Nearby returns at most limit drivers within radius metres of center that pass filter,
// nearest first; those at the same distance by id. No driver in range is an empty result.
//
// Distances are great-circle on a sphere of dray.EarthRadius, as in Redis. radius is in
// (0, dray.MaxRadius], limit in [1, dray.MaxLimit]; otherwise it fails with
// dray.ErrBadRequest, or with dray.ErrInvalidPosition for center. The first question about
// a place costs two round trips, those after it none: it is answered from copies. Where
// these would be more than Config.MaxBuckets, or may be behind because their feed does not
// deliver, Redis is asked each time; it fails with dray.ErrUnavailable when that does not answer.
func (h *Hub) Nearby(ctx context.Context, center dray.Point, radius float64, limit int, filter dray.Filter) ([]Hit, error) {
	switch {
	case !(math.Abs(center.Latitude) <= dray.MaxLatitude):
		return nil, dray.FieldError(dray.CodeInvalidPosition, "latitude", "must be within ±%v degrees", dray.MaxLatitude)
	case !(math.Abs(center.Longitude) <= 180):
		return nil, dray.FieldError(dray.CodeInvalidPosition, "longitude", "must be within ±180 degrees")
	case !(radius > 0 && radius <= dray.MaxRadius):
		return nil, bad("radius", "must be over 0 and at most %v metres", dray.MaxRadius)
	case limit < 1 || limit > dray.MaxLimit:
		return nil, bad("limit", "must be within 1 and %d", dray.MaxLimit)
	}
	if err := filter.Validate(); err != nil {
		return nil, err
	}
	h.metrics.questions.Inc()
	var room [16]location.Bucket
	ids := h.tiles.circle(h.cfg.Locations.BucketAt(center), vectorOf(center), radius, room[:0])
	hits, err := h.search(ids, center, radius, limit, filter)
	if errors.Is(err, errNotHeld) {
		var held []*bucket
		if held, err = h.attach(ctx, ids); err == nil {
			defer h.release(held)
			hits, err = h.search(ids, center, radius, limit, filter)
		}
	}
	if errors.Is(err, errNoRoom) || errors.Is(err, errNotSure) {
		h.metrics.fallbacks.Inc()
		return h.ask(ctx, ids, center, radius, limit, filter)
	}
	return hits, err
}

var (
	errNotHeld = errors.New("watch: not all buckets are held")
	errNotSure = errors.New("watch: a copy may be behind")
)

// search answers from the copies. It fails with errNotHeld, or with errNotSure when a copy is
// being read again or its feed does not deliver.
func (h *Hub) search(ids []location.Bucket, center dray.Point, radius float64, limit int, filter dray.Filter) ([]Hit, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.searchLocked(ids, center, radius, limit, filter)
}

func (h *Hub) searchLocked(ids []location.Bucket, center dray.Point, radius float64, limit int, filter dray.Filter) ([]Hit, error) {
	if !h.claims.live {
		return nil, errNotHeld
	}
	if !h.claims.sureLocked() {
		return nil, errNotSure
	}
	now := time.Now()
	for _, id := range ids {
		b := h.buckets[id]
		if b == nil || !b.live {
			return nil, errNotHeld
		}
		if b.reading || !b.feed.conn.Healthy() {
			return nil, errNotSure
		}
		b.used.Store(now.UnixNano())
	}
	return h.nearestLocked(&h.grid, center, radius, limit, filter), nil
}

// nearestLocked searches one grid.
func (h *Hub) nearestLocked(g *grid, center dray.Point, radius float64, limit int, filter dray.Filter) []Hit {
	v := vectorOf(center)
	f, _ := h.finds.Get().(*finds)
	if f == nil {
		f = new(finds)
	}
	defer h.keep(f)
	// a circle that should hold enough by the density here, then wider ones if it did not
	r := radius
	if density := g.density(center); density > 0 {
		r = math.Min(math.Sqrt(1.3*float64(limit)/density/math.Pi), radius)
	}
	for ; ; r = math.Min(2*r, radius) {
		f.clear()
		reach := chord2Of(r)
		g.scan(boxAround(center, r), func(x *spot) {
			if c := chord2(x.at, v); c <= reach && (len(filter) == 0 || filter.Match(x.record.attributes)) {
				f.near = append(f.near, near{c, x.driver, x.record})
			}
		})
		if len(f.near) >= limit || r == radius {
			break
		}
	}
	return f.nearest(limit)
}

// near is a driver that an answer may name, and the square of its chord from the center.
type near struct {
	chord2 float64
	driver *driver
	record *record
}

func (a *near) compare(b *near) int {
	if a.chord2 != b.chord2 {
		return cmp.Compare(a.chord2, b.chord2)
	}
	return cmp.Compare(a.driver.id, b.driver.id)
}

// finds is the drivers that an answer may name, and the room for sorting them.
type finds struct {
	near    []near
	ranks   []rank
	touched byte // written so that what is read to have it at hand is read
}

// A rank stands for one of near while they are sorted: it holds no pointer, of whose moves the
// garbage collector would be told.
type rank struct {
	chord2 float64
	near   int // index
}

// maxFinds is the most drivers whose room is kept for another question.
const maxFinds = 4096

func (h *Hub) keep(f *finds) {
	if f.clear(); cap(f.near) <= maxFinds {
		h.finds.Put(f)
	}
}

func (f *finds) clear() {
	clear(f.near)
	f.near, f.ranks = f.near[:0], f.ranks[:0]
}

// nearest makes hits of the limit that are nearest.
func (f *finds) nearest(limit int) []Hit {
	for i := range f.near {
		f.ranks = append(f.ranks, rank{f.near[i].chord2, i})
	}
	slices.SortFunc(f.ranks, func(a, b rank) int {
		switch {
		case a.chord2 < b.chord2:
			return -1
		case a.chord2 > b.chord2:
			return 1
		}
		return f.near[a.near].compare(&f.near[b.near])
	})
	hits := make([]Hit, min(limit, len(f.ranks)))
	for i := range hits {
		x := f.ranks[i]
		hits[i] = Hit{Distance: metresOf(x.chord2), record: f.near[x.near].record}
	}
	// Records lie cold in memory. Asked for together they come at once, not one after the other.
	var touched byte
	for i := range hits {
		touched += byte(len(hits[i].record.json))
	}
	for i := range hits {
		json := hits[i].record.json
		touched += json[0] + json[len(json)-1]
	}
	f.touched = touched
	return hits
}

// ask lets Redis search, for questions that this node has no room to hold copies for. Each
// bucket gathers and sorts all its matches, which holds up that Redis for milliseconds where
// drivers are dense; so of each it takes the nearest few, and more only where these do not do.
func (h *Hub) ask(ctx context.Context, ids []location.Bucket, center dray.Point, radius float64, limit int, filter dray.Filter) ([]Hit, error) {
	for count := 2*limit + 16; ; count *= 8 {
		found, all, err := h.askNearest(ctx, ids, center, radius, count, filter)
		if err == nil {
			found, err = h.unheld(ctx, found, limit)
		}
		if err != nil {
			return nil, err
		}
		if all || len(found) >= limit {
			return nearest(found, limit), nil
		}
	}
}

// askNearest asks for the nearest count of each bucket. It returns those nearer than what may
// be missing; all tells that nothing is.
func (h *Hub) askNearest(ctx context.Context, ids []location.Bucket, center dray.Point, radius float64, count int, filter dray.Filter) (found []near, all bool, err error) {
	rdb := h.cfg.Redis.Redis()
	query := redis.GeoSearchQuery{Longitude: center.Longitude, Latitude: center.Latitude, Radius: radius, RadiusUnit: "m", Sort: "ASC", Count: count}
	places := make([]*redis.GeoSearchLocationCmd, len(ids))
	var now *redis.TimeCmd
	_, err = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			places[i] = p.GeoSearchLocation(ctx, h.cfg.Locations.GeoKey(id), &redis.GeoSearchLocationQuery{GeoSearchQuery: query, WithDist: true})
		}
		now = p.Time(ctx)
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	reach := radius
	names := make([][]string, len(ids))
	all = true
	for i, cmd := range places {
		list := cmd.Val()
		for _, x := range list {
			names[i] = append(names[i], x.Name)
		}
		if len(list) == count {
			all = false
			reach = math.Min(reach, list[count-1].Dist-geohashError)
		}
	}
	if reach < 0 { // more at one place than were asked for
		return nil, false, nil
	}
	records := make([]*redis.SliceCmd, len(ids))
	_, err = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			if len(names[i]) > 0 {
				records[i] = p.HMGet(ctx, h.cfg.Locations.RecordsKey(id), names[i]...)
			}
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	newest := make(map[string]near) // a driver may be in two buckets while it crosses
	at := make(map[string]int64)
	v := vectorOf(center)
	for _, cmd := range records {
		if cmd == nil {
			continue
		}
		for _, value := range cmd.Val() {
			text, _ := value.(string)
			e, ok := location.ParseEntry([]byte(text))
			if !ok || e.Left || now.Val().UnixMilli()-e.ReceivedAt >= h.cfg.Locations.TTL().Milliseconds() || e.At <= at[string(e.Driver)] {
				continue
			}
			r := &record{json: e.JSON}
			if len(e.Attributes) > 0 && len(filter) > 0 {
				if err := dray.Unmarshal(e.Attributes, &r.attributes); err != nil {
					continue
				}
			}
			id := string(e.Driver)
			at[id] = e.At
			delete(newest, id)
			if c := chord2(vectorOf(e.Point), v); c <= chord2Of(reach) && filter.Match(r.attributes) {
				newest[id] = near{c, &driver{id: id}, r}
			}
		}
	}
	for _, n := range newest {
		found = append(found, n)
	}
	return found, all, nil
}

// geohashError is more than what Redis keeps of a place is off, in metres.
const geohashError = 1

// nearest makes hits of the limit that are nearest.
func nearest(found []near, limit int) []Hit {
	f := finds{near: found}
	return f.nearest(limit)
}

func sortNear(found []near) {
	slices.SortFunc(found, func(a, b near) int { return a.compare(&b) })
}
