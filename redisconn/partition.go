package redisconn

import "strconv"

// clusterPartitions is the number of partitions in a Cluster. It divides 16,384.
const clusterPartitions = 64

// clusterTags finds a hash tag for each partition. Tag i lies near the middle of the i-th of 64
// equal ranges of slots, so that any usual split of the slots into equal parts (3, 6, ... masters)
// gets its share of partitions to within one; naive numbering gave 27:15 on six nodes.
func clusterTags() []string {
	const width = 16384 / clusterPartitions
	tags := make([]string, clusterPartitions)
	for n, missing := 0, clusterPartitions; missing > 0; n++ {
		tag := "p" + strconv.Itoa(n)
		slot := int(crc16(tag) % 16384)
		i, offset := slot/width, slot%width-width/2
		if tags[i] == "" && -16 <= offset && offset <= 16 {
			tags[i] = tag
			missing--
		}
	}
	return tags
}

// Partition is the partition of a name, always the same: FNV-1a (Fowler, Noll, Vo) in 64 bits,
// whose low bits know the low bits of the name alone, and so then the finalizer of SplitMix64
// (Steele, Lea, Flood, OOPSLA 2014).
func (c *Client) Partition(name string) int {
	if len(c.tags) == 1 {
		return 0
	}
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return int((h ^ h>>31) % uint64(len(c.tags)))
}

// Slot is the Cluster slot, 0 to 16,383, of a hash tag (what stands between the braces of a key).
func Slot(tag string) int { return int(crc16(tag) % 16384) }

// crc16 is CRC-16/XMODEM, as Redis computes it (src/crc16.c).
func crc16(s string) (crc uint16) {
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
