package loadtest

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// The stock of the naive server: a hash for each SKU, one EVALSHA a request.

// naiveReserve checks, holds, and writes a ledger entry.
var naiveReserve = redis.NewScript(`
local q = tonumber(redis.call('HGET', KEYS[1], 'quantity') or 0)
local r = tonumber(redis.call('HGET', KEYS[1], 'reserved') or 0)
local n = tonumber(ARGV[2])
if q - r < n then return -1 end
local time = redis.call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[4] * 1000
redis.call('HSET', KEYS[1], 'reserved', r + n)
redis.call('HSET', KEYS[2], 'sku', ARGV[3], 'quantity', n, 'status', 'held', 'expires', expires)
redis.call('ZADD', KEYS[3], expires, ARGV[1])
redis.call('XADD', KEYS[4], '*', 'kind', 'hold', 'sku', ARGV[3], 'reservation', ARGV[1], 'before', r, 'after', r + n)
return expires`)

type naiveItem struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

type naiveOrder struct {
	Location   string      `json:"location"`
	Items      []naiveItem `json:"items"`
	TTLSeconds int64       `json:"ttlSeconds"`
}

type naiveReservation struct {
	Reservation string      `json:"reservation"`
	Location    string      `json:"location"`
	Status      string      `json:"status"`
	Items       []naiveItem `json:"items"`
	ExpiresAt   int64       `json:"expiresAt"`
}

func naiveSKU(location, sku string) string { return "naive:stock:" + location + ":" + sku }

func (n *Naive) putStock(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Quantity int64 `json:"quantity"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	key := naiveSKU(r.PathValue("location"), r.PathValue("sku"))
	if err := n.rdb.HSet(r.Context(), key, "quantity", body.Quantity, "reserved", 0).Err(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	n.getStock(w, r)
}

func (n *Naive) getStock(w http.ResponseWriter, r *http.Request) {
	location, sku := r.PathValue("location"), r.PathValue("sku")
	held, err := n.rdb.HGetAll(r.Context(), naiveSKU(location, sku)).Result()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	quantity, err1 := strconv.ParseInt(held["quantity"], 10, 64)
	reserved, err2 := strconv.ParseInt(held["reserved"], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	writeNaive(w, http.StatusOK, map[string]any{"location": location, "sku": sku, "quantity": quantity, "reserved": reserved, "available": quantity - reserved})
}

func (n *Naive) postReservation(w http.ResponseWriter, r *http.Request) {
	var o naiveOrder
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || len(o.Items) != 1 {
		http.Error(w, "one item is wanted", http.StatusBadRequest)
		return
	}
	id, it := rand.Text(), o.Items[0]
	keys := []string{naiveSKU(o.Location, it.SKU), "naive:hold:" + id, "naive:due", "naive:ledger"}
	expires, err := naiveReserve.Run(r.Context(), n.rdb, keys, id, it.Quantity, it.SKU, o.TTLSeconds).Int64()
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case expires < 0:
		writeNaive(w, http.StatusConflict, map[string]any{"code": "insufficient_stock"})
	default:
		writeNaive(w, http.StatusCreated, naiveReservation{id, o.Location, "held", o.Items, expires})
	}
}

func writeNaive(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client has gone
}
