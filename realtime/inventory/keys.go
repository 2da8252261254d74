package inventory

import (
	"strconv"
	"strings"

	"dray"
	"dray/redisconn"
)

// A location belongs to a partition, and all its keys share the partition's hash tag:
//
//	<prefix>{<tag>}:inv:<location>:stock   hash  SKU -> row "<quantity> <reserved> <version> <updated ms>"; "#" -> number of the last entry
//	<prefix>{<tag>}:inv:<location>:holds   hash  reservation -> record, below
//	<prefix>{<tag>}:inv:<location>:keys    hash  hash of caller and key -> "<fingerprint> <answer>"
//	<prefix>{<tag>}:inv:<location>:due     zset  what is due, below -> ms
//	<prefix>{<tag>}:inv:<location>:ledger  stream, below
//	<prefix>{<tag>}:inv:<location>:skus    zset  SKU -> 0, for pages in order
//	<prefix>{<tag>}:inv:<location>:feed    channel: each message of the ledger
//	<prefix>{<tag>}:inv:due                zset  location -> ms when something in it is due
//	<prefix>{<tag>}:inv:locations          set   of locations that have stock
//	<prefix>{<tag>}:inv:near:<key>         string, a pin (near.go)
//	<prefix>{<first tag>}:inv:places       GEO set of the locations that have a place
//	<prefix>{<first tag>}:inv:sweeper      string, the lease of the sweeper
//
// A reservation's record is a line "<status> <made ms> <expires ms> <message> <by> <key>", then
// a line "<SKU> <quantity> <committed> <released>" each; status is h held, c, r or x: how its last
// units ended; message is that of the ledger with its last entries. "*" stands for nobody, "-" for no key.
//
// Members of due are lists with commas: of reservations that were made by one call and expire then, or of one that was
// extended; with "~" before it, of those that ended in one call, and with "+" of fields of keys, which are then forgotten.
//
// A message of the ledger tells what one call changed: in the stream under the id "<first>-0", in the field m. It is
//
//	<first> <last> <ms>
//	<kind> <SKU> <change of quantity> <change of reserved> <reservation> <message> <by> <reason>
//	...
//
//	<SKU>
//	<its row as it was before>
//	...
//
// Entries are numbered from first to last without gaps, a line for each, or for several one after the other that
// differ in the reservation only: then these stand there with commas. message is the one before with entries
// of the same reservation, 0 for none; the version in a row is the SKU's entry before.
type keys struct {
	redis *redisconn.Client
	bases []string // partition -> "<prefix>{<tag>}:inv:"
}

func newKeys(c *redisconn.Client) (k keys) {
	k.redis = c
	for i := range c.Partitions() {
		k.bases = append(k.bases, c.Prefix()+"{"+c.Tag(i)+"}:inv:")
	}
	return k
}

func (k *keys) base(location string) string {
	return k.bases[k.redis.Partition(location)] + location + ":"
}

func (k *keys) stock(location string) string  { return k.base(location) + "stock" }
func (k *keys) holds(location string) string  { return k.base(location) + "holds" }
func (k *keys) ledger(location string) string { return k.base(location) + "ledger" }
func (k *keys) skus(location string) string   { return k.base(location) + "skus" }
func (k *keys) feed(location string) string   { return k.base(location) + "feed" }
func (k *keys) due(partition int) string      { return k.bases[partition] + "due" }
func (k *keys) places() string                { return k.bases[0] + "places" }
func (k *keys) sweeper() string               { return k.bases[0] + "sweeper" }
func (k *keys) locations(part int) string     { return k.bases[part] + "locations" }

// ofApply are the KEYS of apply.lua.
func (k *keys) ofApply(location string) []string {
	base, p := k.base(location), k.redis.Partition(location)
	return []string{base + "stock", base + "holds", base + "keys", base + "due", base + "ledger", base + "skus",
		k.due(p), k.locations(p)}
}

// A reservation's id is "<location>.<random>". locationOf is "" for what is none.
func locationOf(reservation string) string {
	if i := strings.LastIndexByte(reservation, '.'); i > 0 && dray.ValidServerID(reservation) && dray.ValidID(reservation[:i]) {
		return reservation[:i]
	}
	return ""
}

// fields cuts a text of n words apart; the last one takes the rest. false where there are fewer.
func fields(s string, n int) ([]string, bool) {
	words := strings.SplitN(s, " ", n)
	return words, len(words) == n
}

// numbers reads words as integers.
func numbers(words []string, into ...*int64) bool {
	for i, p := range into {
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return false
		}
		*p = n
	}
	return true
}
