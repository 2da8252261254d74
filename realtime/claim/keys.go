package claim

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dray"
	"dray/redisconn"
)

// All keys of claims share the tag of one partition, in a Cluster too: so one script call
// chooses among all drivers, holds all of a claim or none, and keeps its answer, and there is
// nothing that a crash could leave half done.
//
//	<prefix>{<tag>}:claims        hash    driver -> "<when it ends, ms> <claim>"; "#" -> number of the last message
//	<prefix>{<tag>}:claim:<id>    string  the claim's drivers, a space between two; goes when the claim ends
//	<prefix>{<tag>}:key:<hash>    hash    print -> of the request, answer -> as it was told; goes after 24 hours
//	<prefix>{<tag>}:feed:claims   channel of what changes
const Partition = 0

func base(c *redisconn.Client) string { return c.Prefix() + "{" + c.Tag(Partition) + "}:" }

// Channel is the channel on which nodes hear of claims, for a [redisconn.Feed] of Partition.
func Channel(c *redisconn.Client) string { return base(c) + "feed:claims" }

// ParseLine reads one line of a message after its number: who is held, and for how many
// milliseconds; 0 where it is held no more.
func ParseLine(line string) (driver string, left int64, ok bool) {
	driver, text, _ := strings.Cut(line, " ")
	left, err := strconv.ParseInt(text, 10, 64)
	return driver, left, err == nil && driver != "" && left >= 0
}

// keyName is what stands in a Redis key for an idempotency key: nothing that a client chose,
// and no two callers' are the same.
func keyName(caller, key string) string {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(caller))))
	h.Write([]byte(caller + key))
	return hex.EncodeToString(h.Sum(nil))
}

// fingerprint tells whether two requests ask for the same, however they were spelled.
func fingerprint(r *dray.ClaimRequest) string {
	b := dray.AppendNumber(nil, r.Latitude)
	for _, f := range []float64{r.Longitude, r.Radius, float64(r.Count), float64(r.TTL.Milliseconds())} {
		b = dray.AppendNumber(append(b, ' '), f)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Filter)) {
		b = append(dray.AppendString(append(b, ' '), name), '=')
		values := slices.Sorted(slices.Values(r.Filter[name]))
		for _, v := range slices.Compact(values) {
			b = append(dray.AppendString(b, v), ',')
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
