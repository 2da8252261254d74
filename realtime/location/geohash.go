package location

import "dray"

// geohash is the score that GEOADD gives a place: 26 bits of latitude and of longitude, in
// turns (Redis, src/geohash.c). ZADD with it costs Redis less than GEOADD, which reads two
// numbers, writes a third and reads that again.
func geohash(p dray.Point) uint64 {
	lat := uint32((p.Latitude + dray.MaxLatitude) / (2 * dray.MaxLatitude) * (1 << 26))
	lng := uint32((p.Longitude + 180) / 360 * (1 << 26))
	return spread(lat) | spread(lng)<<1
}

// spread puts a zero before each bit.
func spread(n uint32) uint64 {
	x := uint64(n)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
	x = (x | x<<2) & 0x3333333333333333
	return (x | x<<1) & 0x5555555555555555
}
