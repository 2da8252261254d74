package location

import (
	"strconv"
	"strings"

	"github.com/uber/h3-go/v4"

	"dray"
	"dray/redisconn"
)

// All keys of a partition share its hash tag, so that one script call serves many buckets:
//
//	<prefix>{<tag>}:rec:<cell>     hash  driver -> record (record.go); "#" -> number of the last message
//	<prefix>{<tag>}:geo:<cell>     zset  driver -> geohash, for GEOSEARCH by any program
//	<prefix>{<tag>}:dir            hash  driver -> entry: "<cell> <timestamp>" of the bucket it last entered, then
//	                                     " <cell> <timestamp>" of each it is about to enter (crossing.go); "#" as above
//	<prefix>{<tag>}:trail:<driver> zset  record -> timestamp
//	<prefix>{<tag>}:feed:<cell>    channel of a bucket's changes
//	<prefix>{<tag>}:feed:dir       channel of the directory's changes
//
// A bucket's partition follows from its cell, a directory entry's and a trail's from the driver.
type keys struct {
	redis *redisconn.Client
	bases []string // partition -> "<prefix>{<tag>}:"
}

// A Bucket is an H3 cell at Resolution: the unit in which positions are kept and watched.
type Bucket h3.Cell

// Resolution is that of the buckets: about 250 km² each, so that a city is a handful and a
// batch of positions touches few. docs/performance.md has the measurement.
const Resolution = 5

func (b Bucket) String() string { return strconv.FormatUint(uint64(b), 16) }

// ParseBucket reads what String wrote; 0 for anything else.
func ParseBucket(s string) Bucket {
	n, err := strconv.ParseUint(s, 16, 63)
	if err != nil {
		return 0
	}
	return Bucket(n)
}

func (k *keys) ofBucket(b Bucket) int {
	return int(mix(uint64(b)) % uint64(len(k.bases)))
}

func (k *keys) ofDriver(driver string) int { return k.redis.Partition(driver) }

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (k *keys) records(b Bucket) string  { return k.bases[k.ofBucket(b)] + "rec:" + b.String() }
func (k *keys) geo(b Bucket) string      { return k.bases[k.ofBucket(b)] + "geo:" + b.String() }
func (k *keys) feed(b Bucket) string     { return k.bases[k.ofBucket(b)] + "feed:" + b.String() }
func (k *keys) dir(partition int) string { return k.bases[partition] + "dir" }
func (k *keys) dirFeed(part int) string  { return k.bases[part] + "feed:dir" }
func (k *keys) trail(driver string) string {
	return k.bases[k.ofDriver(driver)] + "trail:" + driver
}

// What package watch needs to follow buckets and drivers.

// PartitionOf is the partition of a bucket's keys and feed.
func (s *Store) PartitionOf(b Bucket) int { return s.keys.ofBucket(b) }

// RecordsKey is the hash of a bucket's records.
func (s *Store) RecordsKey(b Bucket) string { return s.keys.records(b) }

// GeoKey is the GEO set of a bucket.
func (s *Store) GeoKey(b Bucket) string { return s.keys.geo(b) }

// FeedChannel is the channel of a bucket's changes.
func (s *Store) FeedChannel(b Bucket) string { return s.keys.feed(b) }

// DirectoryPartition is the partition whose directory knows a driver.
func (s *Store) DirectoryPartition(driver string) int { return s.keys.ofDriver(driver) }

// DirectoryKey is the hash of a partition's directory.
func (s *Store) DirectoryKey(partition int) string { return s.keys.dir(partition) }

// DirectoryChannel is the channel of a directory's changes.
func (s *Store) DirectoryChannel(partition int) string { return s.keys.dirFeed(partition) }

// BucketAt is BucketAt by memory where it can be.
func (s *Store) BucketAt(at dray.Point) Bucket { return s.buckets.at(at) }

// ParseMessage splits a feed message into its number and its lines.
func ParseMessage(payload string) (number int64, lines string, ok bool) {
	head, lines, ok := strings.Cut(payload, "\n")
	number, err := strconv.ParseInt(head, 10, 64)
	return number, lines, ok && err == nil
}

// ParseDirectoryEntry reads the value of a directory's field; 0 for anything else.
func ParseDirectoryEntry(s string) Bucket {
	e := parseDirEntry(s)
	return e.bucket()
}
