-- ledger.lua: go back through the entries of a SKU, newest first.
-- KEYS[1]  ledger   stream of messages (keys.go)
-- ARGV[1]  number of the entry to begin with    ARGV[2]  SKU
-- ARGV[3]  most entries                         ARGV[4]  most entries of others to pass on the way
-- Returns  for each entry: number, ms, "<kind> <quantity before> <after> <reserved before> <after>
--          <reservation> <message> <by> <reason>"; then the number to go on with, 0 at the end, which may
--          be where the ledger was cut.
-- Reads only. O(log N) a message and the entries in it.
local n, sku, limit, budget = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local find, match, sub, format = string.find, string.match, string.sub, string.format
local answer = {}
while n > 0 and limit > 0 and budget > 0 do
  local found = redis.call('XREVRANGE', KEYS[1], format('%d', n), '-', 'COUNT', '1')[1]
  local text = found and found[2][2] or ''
  local first, at = match(text, '^(%d+) %d+ (%d+)')
  local rows = find(text, '\n\n', 1, true)
  local _, last = find(text, '\n' .. sku .. '\n', rows, true)
  if not last then
    n = 0
    break
  end
  local q, r, version = match(text, '^(%d+) (%-?%d+) (%d+)', last + 1)
  local mine, number = {}, first - 1
  for line in string.gmatch(sub(text, 1, rows), '\n([^\n]+)') do
    if number >= n then break end
    local kind = match(line, '^%a+')
    local dq, dr, whose, rest = match(line, '^(%-?%d+) (%-?%d+) (%S+) (.*)$', find(line, ' ', #kind + 2, true) + 1)
    for reservation in string.gmatch(whose, '[^,]+') do
      number, budget = number + 1, budget - 1
      if number > n then break end
      if sub(line, #kind + 2, #kind + #sku + 2) == sku .. ' ' then
        mine[#mine + 1] = {number, format('%s %d %d %d %d %s %s', kind, q, q + dq, r, r + dr, reservation, rest)}
        q, r = q + dq, r + dr
      end
    end
  end
  n = tonumber(version)
  for i = #mine, 1, -1 do
    if limit == 0 then
      n = mine[i][1]
      break
    end
    answer[#answer + 1] = format('%d', mine[i][1])
    answer[#answer + 1] = at
    answer[#answer + 1] = mine[i][2]
    limit = limit - 1
  end
end
answer[#answer + 1] = format('%d', n)
return answer
