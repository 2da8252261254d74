-- trail.lua: add positions to the trails of their drivers.
-- KEYS[i]   <base>trail:<driver>   zset  record -> timestamp
-- ARGV[1]   most positions of a trail
-- ARGV[2]   milliseconds until a position leaves its trail, counted from its timestamp
-- then for each key: timestamp, the record's text from after the timestamp
-- Returns   the number of keys. One position a timestamp: the last one told stands.
-- O(log N) each in the length of the trail. Idempotent.
local most, age = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, trail in ipairs(KEYS) do
  local at, rest = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  redis.call('ZREMRANGEBYSCORE', trail, at, at)
  redis.call('ZADD', trail, at, string.format('{"receivedAt":%.0f,"timestamp":', now) .. at .. rest)
  redis.call('ZREMRANGEBYRANK', trail, 0, -most - 1)
  redis.call('ZREMRANGEBYSCORE', trail, '-inf', string.format('(%.0f', now - age))
  redis.call('PEXPIRE', trail, age + 60000)
end
return #KEYS
