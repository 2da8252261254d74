package loadtest

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// What Redis alone does, asked straight through go-redis: the floor under any server that
// keeps what it is told there. t.Redis names it.

const (
	floorKey     = "floor:geo"
	floorRecords = "floor:rec"
	floorFeed    = "floor:feed"
	floorBatch   = 64 // positions in a pipeline
	floorClients = 8
)

// RedisIngest writes positions: GEOADD, HSET and PUBLISH for each, pipelined by 64.
func RedisIngest(ctx context.Context, t Target, p *IngestPlan) (*Result, error) {
	rdb := openRedis(t.Redis)
	defer rdb.Close()
	r := newRun(ctx, "ingest", t, &p.Plan)
	defer r.end()
	f := newFleet(&p.Plan)
	clients := min(floorClients, p.Drivers)
	for i := range clients {
		r.goLoad(func() error {
			turn := i
			var text []byte
			for !r.stopping.Load() {
				sent, ms := nanos(), time.Now().UnixMilli()
				_, err := rdb.Pipelined(r.ctx, func(pipe redis.Pipeliner) error {
					for range floorBatch {
						at := f.move(turn, ms)
						text = f.appendPosition(text[:0], turn, at)
						record := string(text)
						pipe.GeoAdd(r.ctx, floorKey, geoLocation(f, turn, at))
						pipe.HSet(r.ctx, floorRecords, f.ids[turn], record)
						pipe.Publish(r.ctx, floorFeed, record)
						if turn += clients; turn >= p.Drivers {
							turn = i
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
				r.meter.done(i, sent, nanos(), floorBatch)
			}
			return nil
		})
	}
	if err := r.measure("positions"); err != nil {
		return nil, err
	}
	r.counted()
	r.stop()
	return r.result, nil
}

func geoLocation(f *fleet, i int, p place) *redis.GeoLocation {
	at := p.point()
	return &redis.GeoLocation{Name: f.ids[i], Latitude: at.Latitude, Longitude: at.Longitude}
}

// RedisNearby asks GEOSEARCH on one key that holds the whole fleet.
func RedisNearby(ctx context.Context, t Target, p *NearbyPlan) (*Result, error) {
	rdb := openRedis(t.Redis)
	defer rdb.Close()
	r := newRun(ctx, "nearby", t, &p.Plan)
	defer r.end()
	f := newFleet(&p.Plan)
	const perLoad = 1000
	for from := 0; from < p.Drivers; from += perLoad {
		var list []*redis.GeoLocation
		for i := from; i < min(from+perLoad, p.Drivers); i++ {
			list = append(list, geoLocation(f, i, f.move(i, 1)))
		}
		if err := rdb.GeoAdd(r.ctx, floorKey, list...).Err(); err != nil {
			return nil, err
		}
	}
	for i := range p.Connections {
		random := rand.New(rand.NewPCG(p.Seed, uint64(100+i)))
		r.goLoad(func() error {
			for !r.stopping.Load() {
				at, sent := f.somewhere(random), nanos()
				err := rdb.GeoSearchLocation(r.ctx, floorKey, &redis.GeoSearchLocationQuery{
					GeoSearchQuery: redis.GeoSearchQuery{Latitude: at.Latitude, Longitude: at.Longitude, Radius: p.Radius, RadiusUnit: "m", Sort: "ASC", Count: p.Limit},
					WithCoord:      true, WithDist: true,
				}).Err()
				if err != nil {
					return err
				}
				r.meter.done(i, sent, nanos(), 1)
			}
			return nil
		})
	}
	if err := r.measure("questions"); err != nil {
		return nil, err
	}
	r.counted()
	r.stop()
	return r.result, nil
}
