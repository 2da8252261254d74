-- give.lua: end a claim before its time, and tell the nodes.
-- KEYS[1]  <base>claims       hash    driver -> "<when it ends, ms> <claim>"; "#" -> number of the last message
-- KEYS[2]  <base>claim:<id>   string  the claim's drivers, a space between two
-- ARGV[1]  claim id
-- ARGV[2]  channel of the claims
-- ARGV[3]  PUBLISH or SPUBLISH
-- Returns  the number of drivers that it held; 0 where there is no such claim, or no more.
-- Message: its number, then "<driver> 0" a line.
-- O(1) a driver. Idempotent: a driver that another claim holds by now stays held.
local claims, record, id = KEYS[1], KEYS[2], ARGV[1]
local call = redis.call
local list = call('GET', record)
if not list then return 0 end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local freed, message = {}, {''}
for driver in string.gmatch(list, '%S+') do
  local over, owner = string.match(call('HGET', claims, driver) or '', '^(%d+) (.+)$')
  if owner == id and tonumber(over) > now then
    freed[#freed + 1] = driver
    message[#message + 1] = driver .. ' 0'
  end
end
if #freed > 0 then
  message[1] = string.format('%.0f', call('HINCRBY', claims, '#', 1))
  call('HDEL', claims, unpack(freed))
  call(ARGV[3], ARGV[2], table.concat(message, '\n'))
end
call('DEL', record)
return #freed
