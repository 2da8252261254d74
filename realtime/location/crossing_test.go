package location

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn/redistest"
)

// A node that dies between the writes of a crossing, in Cluster: the driver is in two
// buckets. The next position, over any node, heals that; without one, both are gone at the TTL.
func TestNodeKilledBetweenTheWritesOfACrossing(t *testing.T) {
	config := redistest.Cluster(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	const ttl = 2 * time.Second
	rdb := redistest.Open(t, config)
	dying, other := New(Config{Redis: rdb, TTL: ttl}), New(Config{Redis: rdb, TTL: ttl})
	for _, s := range []*Store{dying, other} {
		defer func() { _ = s.Close(context.Background()) }()
	}
	here := dray.Point{Latitude: 30.2672, Longitude: -97.7431}
	there := dray.Point{Latitude: 30.5083, Longitude: -97.6789}
	base := time.Now()
	store := func(driver string, at dray.Point, ms int) {
		p := dray.NewPosition(driver, at)
		p.Timestamp = base.Add(time.Duration(ms) * time.Millisecond)
		if results, err := other.Report(t.Context(), []dray.Position{p}); err != nil || results[0].Outcome != Stored {
			t.Fatalf("Report(%+v) = %v, %v", p, results, err)
		}
	}
	half := func(driver string, at dray.Point, ms int) { // the first write, and no more
		p := dray.NewPosition(driver, at)
		p.Timestamp = base.Add(time.Duration(ms) * time.Millisecond)
		r := encoded(dying, &p)
		outcomes, err := dying.partitions[dying.keys.ofBucket(r.bucket)].call(t.Context(), []report{r})
		if err != nil || outcomes != "e" {
			t.Fatalf("call(%+v) = %q, %v, want an entry", p, outcomes, err)
		}
	}
	live := func(driver string, at dray.Point) bool {
		record, _ := rdb.Redis().HGet(t.Context(), dying.keys.records(dying.buckets.at(at)), driver).Bytes()
		e, ok := ParseEntry(record)
		now := rdb.Redis().Time(t.Context()).Val().UnixMilli()
		return ok && !e.Left && now-e.ReceivedAt < ttl.Milliseconds()
	}

	store("healed", here, 1)
	half("healed", there, 2)
	if !live("healed", here) || !live("healed", there) {
		t.Fatal("the crossing was not cut in half")
	}
	store("healed", there, 3)
	if live("healed", here) || !live("healed", there) {
		t.Errorf("after the next position: live here %v, there %v, want only there", live("healed", here), live("healed", there))
	}

	store("again", here, 1) // the client sends the very position again that it heard nothing of
	half("again", there, 2)
	p := dray.NewPosition("again", there)
	p.Timestamp = base.Add(2 * time.Millisecond)
	if _, err := other.Report(t.Context(), []dray.Position{p}); err != nil {
		t.Fatal(err)
	}
	if d, ok, err := other.Last(t.Context(), "again"); err != nil || !ok || d.Point() != there || live("again", here) {
		t.Errorf("Last = %+v, %v, %v, live here %v, want there only", d, ok, err, live("again", here))
	}

	store("silent", here, 1)
	half("silent", there, 2)
	deadline := time.Now().Add(10 * ttl)
	for live("silent", here) || live("silent", there) {
		if time.Now().After(deadline) {
			t.Fatal("a ghost outlives the TTL")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func encoded(s *Store, p *dray.Position) report {
	var r report
	buf := s.encode(&r, p, time.Now().UnixMilli(), nil)
	r.text = string(buf)
	return r
}

// The squares answer as H3 does but within a thousandth of a degree of a border, and alike
// on every node.
func TestBucketsByMemory(t *testing.T) {
	t1, t2 := new(buckets), new(buckets)
	differ := 0
	const n = 20000
	for i := range n {
		p := dray.Point{Latitude: float64(i*7919%170000)/1000 - 85, Longitude: float64(i*104729%360000)/1000 - 180}
		got := t1.at(p)
		if again := t1.at(p); again != got {
			t.Fatalf("at(%v) = %v, then %v", p, got, again)
		}
		if i%2 == 0 { // another history
			t2.at(dray.Point{Latitude: p.Longitude / 3, Longitude: p.Latitude})
		}
		if other := t2.at(p); other != got {
			t.Fatalf("at(%v) = %v, on another node %v", p, got, other)
		}
		if got != BucketAt(p) {
			differ++
		}
	}
	if differ > n/1000 {
		t.Errorf("%d of %d places differ from H3", differ, n)
	}
	for _, p := range []dray.Point{{Latitude: 0, Longitude: 180}, {Latitude: 0, Longitude: -180}, {Latitude: dray.MaxLatitude, Longitude: 180}, {Latitude: -dray.MaxLatitude, Longitude: -180}} {
		if got := t1.at(p); got != BucketAt(p) {
			t.Errorf("at(%v) = %v, want %v", p, got, BucketAt(p))
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	p := dray.NewPosition("d1", dray.Point{Latitude: 1, Longitude: -2})
	p.Attributes = map[string]string{"a": "\"}"}
	f.Add(appendRest([]byte(recordHead+"1732300000000"+recordMiddle+"17"), &p))
	f.Add([]byte(tombstoneHead + "1732300000000" + recordMiddle + `17,"driver":"d","to":"8542da4bfffffff"}`))
	f.Add([]byte(tombstoneHead + "1732300000000" + recordMiddle + `17,"driver":"d","reason":"offline"} `))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := ParseEntry(b); ok && (len(e.Driver) == 0 || !e.Left && !e.Point.Valid()) {
			t.Errorf("ParseEntry(%q) = %+v", b, e)
		}
	})
}

// The scores are those that GEOADD gives, so that any program may search with GEOSEARCH.
func TestGeohashIsThatOfRedis(t *testing.T) {
	config := redistest.Single(t).Config()
	config.KeyPrefix = redistest.Prefix(t)
	rdb := redistest.Open(t, config)
	key := rdb.Prefix() + "geo"
	points := []dray.Point{{}, {Latitude: dray.MaxLatitude, Longitude: 180}, {Latitude: -dray.MaxLatitude, Longitude: -180}, {Latitude: 1e-9, Longitude: -1e-9}}
	for i := range 2000 {
		points = append(points, dray.Point{Latitude: float64(i*7919%170000)/1000 - 85, Longitude: float64(i*104729%360000)/1000 - 180})
	}
	for i, p := range points {
		name := strconv.Itoa(i)
		rdb.Redis().GeoAdd(t.Context(), key, &redis.GeoLocation{Name: name, Latitude: p.Latitude, Longitude: p.Longitude})
		if want := rdb.Redis().ZScore(t.Context(), key, name).Val(); float64(geohash(p)) != want {
			t.Errorf("geohash(%v) = %d, want %.0f", p, geohash(p), want)
		}
	}
}
