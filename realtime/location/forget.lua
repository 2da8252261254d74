-- forget.lua: take a driver out of the directory if its entry is still the one given.
-- KEYS[1]  <base>dir   hash  driver -> entry (keys.go)
-- ARGV[1]  driver id
-- ARGV[2]  the entry
-- Returns  1 when that was done, 0 when not. O(1). Idempotent.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
