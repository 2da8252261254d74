-- claim.lua: write into the directory that a driver entered a bucket, unless a later entry
-- is known, or one of that time into another bucket.
-- KEYS[1]  <base>dir   hash  driver -> "<cell> <timestamp>"; "#" -> number of the last message
-- ARGV[1]  driver id
-- ARGV[2]  cell, in hexadecimal
-- ARGV[3]  timestamp of the position that entered it
-- ARGV[4]  channel of the directory's feed
-- ARGV[5]  PUBLISH or SPUBLISH
-- ARGV[6]  milliseconds until the directory goes if nobody renews it
-- Returns  {1, what was held before or ""} when it was written; {0, what is held} when it was
--          not; then "driver", "<cell> <timestamp>" of up to two others, picked at random, which
--          the caller checks and forgets if they are gone, so that the directory is bounded.
-- O(1). Idempotent.
local dir, driver, cell, at = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('HGET', dir, driver) or ''
local heldCell, heldAt = string.match(held, '^(%x+) (%d+)$')
if heldAt and (tonumber(heldAt) > tonumber(at) or heldAt == at and heldCell ~= cell) then return {0, held} end
redis.call('HSET', dir, driver, cell .. ' ' .. at)
local n = redis.call('HINCRBY', dir, '#', 1)
if n == 1 then
  local time = redis.call('TIME')
  n = time[1] * 1000000 + time[2]
  redis.call('HSET', dir, '#', string.format('%.0f', n))
end
redis.call(ARGV[5], ARGV[4], string.format('%.0f', n) .. '\n' .. driver .. ' ' .. cell)
redis.call('PEXPIRE', dir, ARGV[6])
local answer = {1, held}
local some = redis.call('HRANDFIELD', dir, 2, 'WITHVALUES')
for i = 1, #some, 2 do
  if some[i] ~= '#' and some[i] ~= driver then
    answer[#answer + 1] = some[i]
    answer[#answer + 1] = some[i + 1]
  end
end
return answer
