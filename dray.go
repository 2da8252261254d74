// Package dray holds the contract's types and codes: what clients, server and libraries
// agree on. It imports nothing else of dray.
//
// The server is cmd/dray, the Go client is package client.
package dray

// IDs of the contract: drivers, locations, SKUs and users to MaxID bytes, the server's own
// (reservations, claims, sessions) to MaxServerID.
const (
	MaxID       = 128
	MaxServerID = 256
)

// ValidID tells whether s is 1 to MaxID bytes of A-Z a-z 0-9 . _ : @ - and so may be part
// of a Redis key.
func ValidID[T string | []byte](s T) bool { return len(s) <= MaxID && validID(s) }

// ValidServerID is ValidID for the ids that the server makes.
func ValidServerID[T string | []byte](s T) bool { return len(s) <= MaxServerID && validID(s) }

func validID[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if !idByte[s[i]] {
			return false
		}
	}
	return len(s) > 0
}

var idByte = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' ||
			b == '.' || b == '_' || b == ':' || b == '@' || b == '-'
	}
	return t
}()
