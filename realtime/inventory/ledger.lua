-- ledger.lua: walk the ledger of a location back from one entry of a SKU, or of a reservation.
-- KEYS[1]  ledger   stream (keys.go)
-- ARGV[1]  number of the entry to begin with
-- ARGV[2]  7 to go back by SKU, 8 by reservation: the column that says how far
-- ARGV[3]  most entries
-- Returns  number, ms, line, for each entry, newest first; then the number to go on with, 0 at the end.
-- Ends early where the ledger was cut. Reads only. O(log N) an entry and the lines of its message.
local n, column, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answer, first, at, lines = {}, nil, nil, nil
while n > 0 and limit > 0 do
  if not first or n < first then
    local found = redis.call('XREVRANGE', KEYS[1], string.format('%.0f', n), '-', 'COUNT', 1)[1]
    if not found then break end
    first, at, lines = tonumber(string.match(found[1], '^%d+')), found[2][2], {}
    for line in string.gmatch(found[2][4], '[^\n]+') do lines[#lines + 1] = line end
  end
  local line = lines[n - first + 1]
  if not line then break end
  answer[#answer + 1] = string.format('%.0f', n)
  answer[#answer + 1] = at
  answer[#answer + 1] = line
  local back, place = 0, 0
  for word in string.gmatch(line, '%S+') do
    place = place + 1
    if place == column then back = tonumber(word) break end
  end
  n, limit = back > 0 and n - back or 0, limit - 1
end
if n > 0 and limit > 0 then n = 0 end
answer[#answer + 1] = string.format('%.0f', n)
return answer
