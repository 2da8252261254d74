-- leave.lua: put a tombstone in the place of a driver's record in one bucket, unless what
-- is held there is newer, and tell the bucket's watchers.
-- KEYS[1]  <base>rec:<cell>   hash  driver -> record; "#" -> number of the last message
-- KEYS[2]  <base>geo:<cell>   zset  driver -> geohash
-- ARGV[1]  driver id
-- ARGV[2]  timestamp that the tombstone gets; empty: that of what is held
-- ARGV[3]  why, the tombstone's last member: "to":"<cell>" or "reason":"offline"
-- ARGV[4]  channel of the bucket's feed
-- ARGV[5]  PUBLISH or SPUBLISH
-- ARGV[6]  1: what is held at an equal timestamp counts as newer
-- Returns  ""                  done, or nothing was there
--          "r<timestamp>"      a newer record is held; nothing was written
--          "t<timestamp> <to>" a newer tombstone is held; nothing was written; to is the cell
--                              where the driver went, empty when it is offline
-- O(log N) in the drivers of the bucket. Idempotent.
local rec, geo, driver, at, why = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('HGET', rec, driver)
if not held then return '' end
local heldAt = string.match(held, '^%d+', 41) or '0'
local tombstone = string.byte(held, 3) ~= 114 -- r of receivedAt
if at == '' then
  at = heldAt
else
  local ahead = tonumber(heldAt) - tonumber(at)
  if ahead > 0 or ahead == 0 and ARGV[6] == '1' then
    if not tombstone then return 'r' .. heldAt end
    return 't' .. heldAt .. ' ' .. (string.match(held, '"to":"(%x+)"}$') or '')
  end
end
if tombstone then return '' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = string.format('{"departedAt":%.0f,"timestamp":%s,"driver":"%s",%s}', now, at, driver, why)
redis.call('HSET', rec, driver, left)
redis.pcall('ZREM', geo, driver) -- may be somebody else's value
local n = redis.call('HINCRBY', rec, '#', 1)
redis.call(ARGV[5], ARGV[4], string.format('%.0f', n) .. '\n' .. left)
return ''
