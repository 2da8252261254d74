-- claim.lua: write into the directory that a driver entered a bucket, unless a later entry
-- is known, or one of that time into another bucket.
-- KEYS[1]  <base>dir   hash  driver -> entry (keys.go); "#" -> number of the last message
-- ARGV[1]  driver id
-- ARGV[2]  cell, in hexadecimal
-- ARGV[3]  timestamp of the position that entered it
-- ARGV[4]  channel of the directory's feed
-- ARGV[5]  PUBLISH or SPUBLISH
-- ARGV[6]  milliseconds until the directory goes if nobody renews it
-- ARGV[7]  1 where the driver was in that bucket before the other entry of an equal time came
-- Returns  {the entry that is held now}: of ARGV[2] and all buckets that it must be made to leave
--          when it was written; then "driver", entry of up to two others, picked at random, which
--          the caller checks and forgets if they are gone, so that the directory is bounded.
-- An entry names at most four buckets to leave: in those before them the driver is stale by then.
-- O(1). Idempotent.
local dir, driver, cell, at, stands = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[7] == '1'
local held = redis.call('HGET', dir, driver) or ''
local heldCell, heldAt, left = string.match(held, '^(%x+) (%d+)(.*)$')
local entry, count = cell .. ' ' .. at, 0
if heldAt then
  if tonumber(heldAt) > tonumber(at) or heldAt == at and heldCell ~= cell and not stands then return {held} end
  for other in string.gmatch(heldCell .. left, '%x+') do
    if other ~= cell and count < 4 then
      entry, count = entry .. ' ' .. other, count + 1
    end
  end
end
redis.call('HSET', dir, driver, entry)
local n = redis.call('HINCRBY', dir, '#', 1)
if n == 1 then
  local time = redis.call('TIME')
  n = time[1] * 1000000 + time[2]
  redis.call('HSET', dir, '#', string.format('%.0f', n))
end
redis.call(ARGV[5], ARGV[4], string.format('%.0f', n) .. '\n' .. driver .. ' ' .. cell)
redis.call('PEXPIRE', dir, ARGV[6])
local answer = {entry}
local some = redis.call('HRANDFIELD', dir, 2, 'WITHVALUES')
for i = 1, #some, 2 do
  if some[i] ~= '#' and some[i] ~= driver then
    answer[#answer + 1] = some[i]
    answer[#answer + 1] = some[i + 1]
  end
end
return answer
