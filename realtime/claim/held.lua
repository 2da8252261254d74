-- held.lua: who is held, and for how long still. Writes nothing.
-- KEYS[1]  <base>claims   hash  driver -> "<when it ends, ms> <claim>"; "#" -> number of the last message
-- ARGV     drivers to tell of; none: all that are held
-- Returns  {number of the last message, driver, milliseconds left, driver, ...} of those held.
-- O(1) a driver told of.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {redis.call('HGET', KEYS[1], '#') or '0'}
local function tell(driver, value)
  local over = value and string.match(value, '^(%d+) ')
  if over and tonumber(over) > now then
    answer[#answer + 1] = driver
    answer[#answer + 1] = string.format('%.0f', tonumber(over) - now)
  end
end
if #ARGV == 0 then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do tell(all[i], all[i + 1]) end
else
  local some = redis.call('HMGET', KEYS[1], unpack(ARGV))
  for i, driver in ipairs(ARGV) do tell(driver, some[i]) end
end
return answer
