-- claim.lua: have the directory name the bucket that a driver entered, unless a later entry
-- is known, or one of that time into another bucket. Where others are to be left first, it is
-- added to them, with its time: so the entry changes whenever the driver comes anew.
-- KEYS[1]  <base>dir   hash  driver -> entry (keys.go); "#" -> number of the last message
-- ARGV[1]  driver id
-- ARGV[2]  cell, in hexadecimal
-- ARGV[3]  timestamp of the position that entered it
-- ARGV[4]  channel of the directory's feed
-- ARGV[5]  PUBLISH or SPUBLISH
-- ARGV[6]  milliseconds until the directory goes if nobody renews it
-- ARGV[7]  the entry of which the driver has left all other buckets; empty at first
-- Returns  {outcome as text, the entry that is held now, ...}:
--   0  the other entry stands; nothing was written
--   1  the entry names this bucket alone, or a later entry into it. Then "driver", entry of up to
--      two others follow, picked at random, which the caller checks and forgets if they are gone, so
--      that the directory is bounded.
--   2  the driver must leave the other buckets of the entry first
-- An entry names at most eight more buckets: in those before them the driver is stale by then.
-- O(1). Idempotent.
local dir, driver, cell, at, seen = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[7]
local held = redis.call('HGET', dir, driver) or ''
local heldCell, heldAt, others = string.match(held, '^(%x+) (%d+)(.*)$')
if heldAt then
  local ahead = tonumber(heldAt) - tonumber(at)
  if ahead > 0 and heldCell == cell then return {'1', held} end
  if ahead > 0 or ahead == 0 and heldCell ~= cell then return {'0', held} end
  if held ~= seen and (heldCell ~= cell or others ~= '') then
    if heldCell == cell then
      heldAt = at
    elseif tonumber(string.match(others, ' ' .. cell .. ' (%d+)') or 0) < tonumber(at) then
      others = string.gsub(others, ' ' .. cell .. ' %d+', '')
      local _, words = string.gsub(others, ' ', '')
      if words >= 16 then others = string.match(others, '^ %x+ %d+(.*)$') end
      others = others .. ' ' .. cell .. ' ' .. at
    end
    local named = heldCell .. ' ' .. heldAt .. others
    if named ~= held then redis.call('HSET', dir, driver, named) end
    return {'2', named}
  end
end
local entry = cell .. ' ' .. at
redis.call('HSET', dir, driver, entry)
local n = redis.call('HINCRBY', dir, '#', 1)
if n == 1 then
  local time = redis.call('TIME')
  n = time[1] * 1000000 + time[2]
  redis.call('HSET', dir, '#', string.format('%.0f', n))
end
redis.call(ARGV[5], ARGV[4], string.format('%.0f', n) .. '\n' .. driver .. ' ' .. cell)
redis.call('PEXPIRE', dir, ARGV[6])
local answer = {'1', entry}
local some = redis.call('HRANDFIELD', dir, 2, 'WITHVALUES')
for i = 1, #some, 2 do
  if some[i] ~= '#' and some[i] ~= driver then
    answer[#answer + 1] = some[i]
    answer[#answer + 1] = some[i + 1]
  end
end
return answer
