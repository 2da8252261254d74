-- take.lua: hold the first free ones of some drivers, all of them in this one step; keep the
-- answer for the claim's key, and tell the nodes.
-- KEYS[1]  <base>claims       hash    driver -> "<when it ends, ms> <claim>"; "#" -> number of the last message
-- KEYS[2]  <base>claim:<id>   string  the claim's drivers, a space between two
-- KEYS[3]  <base>key:<hash>   hash    print -> of the request, answer -> as it was told; not given where there is no key
-- ARGV[1]  claim id
-- ARGV[2]  ttl    milliseconds to hold them, integer >= 1
-- ARGV[3]  count  of drivers to hold
-- ARGV[4]  1 where no others could be had: then fewer than count will do
-- ARGV[5]  channel of the claims
-- ARGV[6]  PUBLISH or SPUBLISH
-- ARGV[7]  print of the request
-- ARGV[8]  milliseconds to keep the answer for the key
-- ARGV[9]  milliseconds until the hash goes if nobody writes: more than the longest ttl
-- then for each candidate, nearest first: driver id, its Driver object
-- Returns  {what came of it, how many candidates others hold, how many ended holds were cleared away}
--          and, where that was 'held', the answer:
--   held      they are held now, or the key's answer was there already
--   mismatch  the key was used with another request; nothing was written
--   short     fewer than count are free; nothing was written
-- Message: its number, then "<driver> <milliseconds left>" a line.
-- O(1) a candidate and a bounded look for ended holds. Idempotent for one claim id.
local claims, record, key = KEYS[1], KEYS[2], KEYS[3]
local id, ttl, count, print = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[7]
local call = redis.call
if key then
  local kept = call('HMGET', key, 'print', 'answer')
  if kept[1] and kept[1] ~= print then return {'mismatch', 0, 0} end
  if kept[1] then return {'held', 0, 0, kept[2]} end
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = string.format('%.0f', now + ttl)

local candidates = {}
for i = 10, #ARGV, 2 do candidates[#candidates + 1] = ARGV[i] end
candidates[#candidates + 1] = '#'
local held = call('HMGET', claims, unpack(candidates))
local entries, drivers, objects, message, lost, cleared = {}, {}, {}, {''}, 0, 0
for i = 1, #candidates - 1 do
  local over, owner = string.match(held[i] or '', '^(%d+) (.+)$')
  if over and tonumber(over) > now and owner ~= id then
    lost = lost + 1
  elseif #drivers < count then
    local driver = candidates[i]
    if over and owner ~= id then cleared = cleared + 1 end
    drivers[#drivers + 1] = driver
    objects[#objects + 1] = ARGV[9 + 2 * i]
    entries[#entries + 1] = driver
    entries[#entries + 1] = ends .. ' ' .. id
    message[#message + 1] = driver .. ' ' .. ARGV[2]
  end
end
if #drivers == 0 or #drivers < count and ARGV[4] ~= '1' then return {'short', lost, 0} end

-- a new hash starts from the clock, so that a number never comes twice
local last = held[#candidates]
last = string.format('%.0f', last and tonumber(last) + 1 or now * 1000)
message[1] = last
entries[#entries + 1] = '#'
entries[#entries + 1] = last
local answer = '{"claim":"' .. id .. '","drivers":[' .. table.concat(objects, ',') .. '],"expiresAt":' .. ends .. '}'
if key then
  call('HSET', key, 'print', print, 'answer', answer)
  call('PEXPIRE', key, ARGV[8])
end
call('SET', record, table.concat(drivers, ' '), 'PX', ttl)
call('HSET', claims, unpack(entries))
call('PEXPIRE', claims, ARGV[9])
call(ARGV[6], ARGV[5], table.concat(message, '\n'))

-- what has ended goes twice as fast as it comes
local some = call('HRANDFIELD', claims, math.min(2 * #drivers + 2, 64), 'WITHVALUES')
for i = 1, #some, 2 do
  local over = string.match(some[i + 1], '^(%d+) ')
  if over and tonumber(over) <= now then cleared = cleared + call('HDEL', claims, some[i]) end
end
return {'held', lost, cleared, answer}
