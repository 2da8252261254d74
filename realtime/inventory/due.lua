-- due.lua: name locations of a partition in which something is due.
-- KEYS[1]  registry   zset  location -> ms when something in it is due
-- ARGV[1]  most locations
-- Returns  milliseconds until the next one is due, 0 when some are, -1 when there is none;
--          then those that are. Reads only. O(log N + the locations named).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not next[1] then return {'-1'} end
local wait = tonumber(next[2]) - now
if wait > 0 then return {string.format('%.0f', wait)} end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
table.insert(due, 1, '0')
return due
