-- report.lua: keep each position that is newer than the one held of its driver, and tell
-- the watchers of its bucket.
-- KEYS[1]    <base>dir          hash  driver -> entry (keys.go)
-- KEYS[2i]   <base>rec:<cell>   hash  driver -> record; "#" -> number of the last message
-- KEYS[2i+1] <base>geo:<cell>   zset  driver -> geohash
-- ARGV[1]  base  "<prefix>{<tag>}:", start of every key and channel of the partition
-- ARGV[2]  ttl   milliseconds a position keeps its driver live
-- ARGV[3]  PUBLISH or SPUBLISH
-- ARGV[4]  1 where this partition is the only one, so that a move is made here, at once
-- then for each bucket i: cell, n, and n times: driver, geohash as GEOADD scores it, and the
-- record's text from its timestamp on. A driver comes once in a call.
-- Returns  one letter for each position, in order:
--   s  stored
--   e  stored, and its driver was not live in this bucket: the caller must claim the
--      directory and make it leave its old bucket (never when ARGV[4] is 1)
--   o  superseded: a newer or equal one is held
--   p  older than the ttl: not stored, it can make nobody live
--   w  not stored: the value under a key of the bucket is somebody else's
-- A record that is not one of ours counts as older than all. Other keys of the partition are
-- made from base: the bucket that a driver left.
-- One message a bucket: its number, then its records, a line each.
-- Idempotent but for the numbers. O(log N) a position in the drivers of its bucket, and a
-- bounded look for stale members. Every time that is kept has 13 digits, so that text compares as numbers
-- do; and the start of a record tells in one comparison whether it is live.
-- What costs here is strings and tables (each byte of a string is hashed) and, where a bucket has
-- few positions, commands: so there are as few as can be, and tables serve every bucket.
local keys, argv = KEYS, ARGV
local base, ttl, publish, alone = argv[1], tonumber(argv[2]), argv[3], argv[4] == '1'
local dir = keys[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local nowText = string.format('%.0f', now)
local oldest = string.format('%.0f', now - ttl)
local expiry = string.format('%.0f', ttl * 6 + 60000) -- more than eight calls, each at most ttl/2 after the one before
local head = '{"receivedAt":' .. nowText .. ',"timestamp":'
local live = '{"receivedAt":' .. oldest -- a tombstone ({"departedAt"...) and what is stale come before
local fresh = string.format('{"receivedAt":%.0f', now - ttl / 2)
local call, pcall, sub, byte, match = redis.call, redis.pcall, string.sub, string.byte, string.match
local unpack, concat = unpack, table.concat
local outcomes, told, entries, tended = {}, 0, {}, false
local leaves, leaving = {}, {}
local drivers, places, records, message = {}, {}, {}, {} -- of one bucket, up to its count

-- the number after last, as text; a new hash starts from the clock, so that a number never
-- comes twice
local function after(last)
  return string.format('%.0f', last and tonumber(last) + 1 or now * 1000)
end

-- drop what is past its time among a few members of a bucket, picked at random
local function prune(rec, geo, count)
  local some = call('HRANDFIELD', rec, count, 'WITHVALUES')
  for i = 1, #some, 2 do
    local driver, record = some[i], some[i + 1]
    if driver ~= '#' and sub(record, 15, 27) < oldest then
      call('ZREM', geo, driver)
      if sub(record, 41, 53) < oldest then call('HDEL', rec, driver) end
    end
  end
end

-- leave the bucket that the directory names; false when what it holds there is not older
local function leave(driver, at, cell)
  local held = call('HGET', dir, driver)
  local old = held and match(held, '^%x+')
  if not old or old == cell then return true end
  local rec = base .. 'rec:' .. old
  local record = pcall('HGET', rec, driver)
  if type(record) ~= 'string' then return true end
  if sub(record, 41, 53) >= at then return false end
  if byte(record, 3) == 114 then -- r of receivedAt: no tombstone
    local tombstone = '{"departedAt":' .. nowText .. ',"timestamp":' .. at .. ',"driver":"' .. driver .. '","to":"' .. cell .. '"}'
    call('HSET', rec, driver, tombstone)
    pcall('ZREM', base .. 'geo:' .. old, driver) -- may be somebody else's value
    if not leaves[old] then
      leaves[old] = {}
      leaving[#leaving + 1] = old
    end
    local list = leaves[old]
    list[#list + 1] = tombstone
  end
  return true
end

-- whether the value under geo is somebody else's
local function isForeign(geo) return type(pcall('ZCARD', geo)) == 'table' end

local arg = 5
for bucket = 2, #keys, 2 do
  local rec, geo = keys[bucket], keys[bucket + 1]
  local cell, count = argv[arg], tonumber(argv[arg + 1])
  local before = told
  arg = arg + 2
  for i = 1, count do drivers[i] = argv[arg + (i - 1) * 3] end
  drivers[count + 1] = '#'
  local held = pcall('HMGET', rec, unpack(drivers, 1, count + 1))
  local foreign = held.err
  local n, entered, renew = 0, 0, false
  for i = 1, count do
    local driver, text = drivers[i], argv[arg + 2]
    local at = sub(text, 1, 13)
    local old, outcome, marked = held[i], 's', false
    if foreign then
      outcome = 'w'
    elseif byte(text, 14) ~= 44 or at < oldest then -- no comma after 13 digits: before 2001
      outcome = 'p'
    elseif old and sub(old, 41, 53) >= at then
      outcome = 'o'
      -- a node died before it claimed this entry: the one that asks again does it
      if byte(old, -1) == 32 then outcome = 'e' end
    else
      local stored = true
      if not old or old < live then
        entered = entered + 1
        if not alone then
          outcome, marked = 'e', true
        elseif isForeign(geo) then -- found out before another bucket is left
          outcome, foreign, stored = 'w', true, false
        elseif leave(driver, at, cell) then
          call('HSET', dir, driver, cell .. ' ' .. at)
          entries[#entries + 1] = driver .. ' ' .. cell
        else
          outcome, stored = 'o', false
        end
      elseif byte(old, -1) == 32 then
        outcome, marked = 'e', true
      end
      if stored then
        n = n + 1
        local record = head .. text
        message[n + 1] = record
        if marked then record = record .. ' ' end
        local m = n * 2
        records[m - 1], records[m] = driver, record
        places[m - 1], places[m] = argv[arg + 1], driver
        renew = renew or old and old < fresh
      end
    end
    told = told + 1
    outcomes[told] = outcome
    arg = arg + 3
  end
  local added = n > 0 and pcall('ZADD', geo, unpack(places, 1, 2 * n))
  if type(added) == 'table' then -- before the records: a script that fails half way is not rolled back
    if not isForeign(geo) then return added end
    for i = before + 1, told do outcomes[i] = 'w' end
  elseif added then
    local last = after(held[count + 1])
    message[1] = last
    records[2 * n + 1], records[2 * n + 2] = '#', last
    call('HSET', rec, unpack(records, 1, 2 * n + 2))
    call(publish, base .. 'feed:' .. cell, concat(message, '\n', 1, n + 1))
    if renew or entered > 0 or tonumber(sub(last, -3)) % 8 == 0 then
      call('PEXPIRE', rec, expiry)
      call('PEXPIRE', geo, expiry)
      tended = true
      prune(rec, geo, math.min(3 + 2 * entered, 64))
    end
  end
end
if tended and alone then call('PEXPIRE', dir, expiry) end

for _, cell in ipairs(leaving) do
  local rec, list = base .. 'rec:' .. cell, leaves[cell]
  local last = after(call('HGET', rec, '#'))
  call('HSET', rec, '#', last)
  call(publish, base .. 'feed:' .. cell, last .. '\n' .. concat(list, '\n'))
end

if #entries > 0 then
  local last = after(call('HGET', dir, '#'))
  call('HSET', dir, '#', last)
  call(publish, base .. 'feed:dir', last .. '\n' .. concat(entries, '\n'))
  -- the directory of what is gone shrinks twice as fast as it grows
  local some = call('HRANDFIELD', dir, math.min(2 * #entries, 64), 'WITHVALUES')
  for i = 1, #some, 2 do
    if some[i] ~= '#' and pcall('HEXISTS', base .. 'rec:' .. match(some[i + 1], '^%x+'), some[i]) ~= 1 then
      call('HDEL', dir, some[i])
    end
  end
end
return concat(outcomes)
