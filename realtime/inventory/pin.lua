-- pin.lua: compare and set.
-- KEYS[1]  a string   ARGV[1]  what it must hold, "" for nothing   ARGV[2]  what it is to hold
-- ARGV[3]  milliseconds until it goes
-- Returns  what it holds now. O(1). Idempotent.
local held = redis.call('GET', KEYS[1]) or ''
if held ~= ARGV[1] then return held end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]
