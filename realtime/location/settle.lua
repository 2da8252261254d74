-- settle.lua: take the mark off a record whose entry is in the directory now.
-- KEYS[1]  <base>rec:<cell>   hash  driver -> record
-- ARGV[1]  driver id
-- ARGV[2]  timestamp of the entry; a newer record keeps its mark, for its own claim is on its way
-- Returns  1 when there was a mark, 0 when not. O(1). Idempotent.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held or string.byte(held, -1) ~= 32 then return 0 end
if tonumber(string.match(held, '^%d+', 41)) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.sub(held, 1, -2))
return 1
