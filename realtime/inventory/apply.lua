-- apply.lua: apply requests to the stock of one location, each by itself and all or nothing,
-- in order; give back first what is due. keys.go tells what the keys hold.
-- KEYS[1..8]  stock, holds, keys, due, ledger, skus of the location; registry, locations of its partition
-- ARGV[1]  PUBLISH or SPUBLISH      ARGV[2]  channel of the location's feed
-- ARGV[3]  the location's id
-- ARGV[4]  entries that the ledger keeps, 0 for no bound   ARGV[5]  milliseconds it keeps them, 0 likewise
-- ARGV[6]  milliseconds an answer is kept for its key, and a reservation after its end
-- ARGV[7]  most due reservations to settle in this call
-- ARGV[8]  1 when replicas are waited for: then a request that only repeats an answer writes it
--          once more, for WAIT knows of this connection's writes only
-- then what the requests name, three lists, each led by its length: SKUs, fields of keys, ids of
-- reservations; then the requests, each led by its letter (k: field of its key or "", f: fingerprint
-- of the request, by: who asks):
--   t ttl                                     how long the holds that follow last
--   h id tail sku quantity entry              hold one line; tail and entry: the end of the record,
--                                             and the line of the ledger, ready made
--   m id tail (sku quantity entry)* ""        hold several
--   H k f final                               before an h or m: its key; final: a refusal is kept too
--   c|r id k f by (sku quantity)* ""          commit or release; without lines all that is held
--   e id k f ttl                              extend to now + ttl
--   p id sku quantity by                      hold more in a reservation that does not expire
--   s sku k f quantity force version by why   set; version "" for any, 0 for a new SKU
--   a sku k f delta by why                    adjust
--   f sku q r version q0 r0 by why            repair counters to q and r; the ledger knows of q0 and r0
--   g sku   q id   w                          read stock, read a reservation, nothing
-- Returns  how many reservations expired in this call, as text; then one text for each request:
--   k<answer>  done      =<answer>  done before, under this key
--   A  ask again: what is due could not all be settled in this call, and it may matter; or the call
--      has worked through as many lines as it may
--   S<sku> <requested> <available>\n...  not enough   X<sku> <requested> <held>\n...  exceeds what is held
--   N  not found      C R E  already committed, released, expired    M  key of another request
--   B<reserved>  below what is reserved    V<version>  another version   T  too much   U<name>  unreadable record
--   - <as S>  the key stands for a refusal
-- An answer is a row, a reservation's record, or expiresAt of a hold ("<id> <expiresAt>" under a key).
-- Nothing is written before all requests are worked out. O(1) a line, O(log N) a reservation in
-- those of the location. What a call that only holds does not need is not even made: a closure
-- or a table costs as much as ten steps, and a number made text, or text a number, likewise.
local stock, holds, keys, due, ledger, skus, registry, locations = unpack(KEYS)
local argv, call, max = ARGV, redis.call, math.max
local match, gmatch, sub, concat, format = string.match, string.gmatch, string.sub, table.concat, string.format
local function int(x) return format('%d', x) end
local number = setmetatable({}, {__index = function(t, text)
  local x = tonumber(text)
  t[text] = x
  return x
end})
local most = 2000 -- lines that a call works through: of holds, of what is due, of reservations looked at
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local nowText = int(now)

local arg = 9
local function list()
  local names, count = {}, tonumber(argv[arg])
  for i = 1, count do names[i] = argv[arg + i] end
  arg = arg + count + 1
  return names
end
local function fetch(key, names)
  if #names == 0 then return names end
  return call('HMGET', key, unpack(names))
end
local S, fields, ids = list(), list(), list()

-- rows: sku -> quantity (false: none), reserved, version once it has changed, the text that was read
local Q, R, V, was, unreadable = {}, {}, {}, {}, {}
local function row(sku, text)
  local q, r = match(text or '', '^(%d+) (%d+) %d+ %d+$')
  if q then
    Q[sku], R[sku], was[sku] = number[q], number[r], text
  else
    Q[sku], R[sku], was[sku] = false, 0, '0 0 0 0'
    if text then unreadable[sku] = true end
  end
end
S[#S + 1] = '#'
local rows = call('HMGET', stock, unpack(S))
for i = 1, #S - 1 do row(S[i], rows[i]) end
local n = tonumber(rows[#S] or '') or math.floor((time[1] * 1000000 + time[2]) / 100)

-- one entry of the ledger, and its effect
local first, entries, changed, before = n + 1, {}, {}, {}
local firstText = int(first)
local function change(sku, q, r, entry)
  n = n + 1
  entries[n - first + 1] = entry
  if not V[sku] then
    local m = #changed + 1
    changed[m], before[m] = sku, sku .. ' ' .. was[sku]
  end
  Q[sku], R[sku], V[sku] = q, r, n
end
local function shown(sku) return format('%d %d %d %s', Q[sku], R[sku], V[sku], nowText) end

-- what is to be written: records, due times, and when the first of them is
local H, D, soonest = {}, {}, math.huge
local function schedule(at, member)
  if at < soonest then soonest = at end
  local m = #D
  D[m + 1], D[m + 2] = int(at), member
end

-- what was answered under a key; nil when nothing was
local K, kept = {}, {}
for i, answer in ipairs(fetch(keys, fields)) do K[fields[i]] = answer end
local function replay(k, print)
  if not K[k] then return nil end
  local f, answer = match(K[k], '^(%S+) (.*)$')
  if not f then return 'U' end
  if f ~= print then return 'M' end
  kept[k] = kept[k] or argv[8] == '1'
  return sub(answer, 1, 2) == '- ' and answer or '=' .. answer -- what is done begins with a letter, digit or id
end
local function remember(k, print, answer)
  if k ~= '' then
    K[k], kept[k] = print .. ' ' .. answer, true
    schedule(now + argv[6], '+' .. k)
  end
  return 'k' .. answer
end

local members = call('ZRANGEBYSCORE', due, '-inf', nowText, 'LIMIT', '0', argv[7])
local behind = #members == tonumber(argv[7])

-- the holds: with the time that was told last
local ends, begins, done
local function hold(id, tail, from, to, k, print, final)
  local answer = k and replay(k, print)
  if answer then return answer end
  local short, bad
  for i = from, to, 3 do
    local sku, want = argv[i], number[argv[i + 1]]
    local q = Q[sku]
    if not q or q - R[sku] < want then
      bad = bad or unreadable[sku] and sku
      short = (short or 'S') .. format('%s %d %d\n', sku, want, q and max(q - R[sku], 0) or 0)
    end
  end
  if short then
    if bad then return 'U' .. bad end
    if behind then return 'A' end
    if final == '1' then remember(k, print, '- ' .. sub(short, 2)) end
    return short
  end
  if n - first > most then return 'A' end
  for i = from, to, 3 do
    local sku = argv[i]
    change(sku, Q[sku], R[sku] + number[argv[i + 1]], argv[i + 2])
  end
  local d, h = #D, #H
  D[d + 1], D[d + 2] = ends, id
  H[h + 1], H[h + 2] = id, begins .. tail
  if k then K[k], kept[k] = print .. ' ' .. id .. ' ' .. ends, true end -- forgotten with its reservation
  return done
end

-- all but holds, made when it is needed: reservations, id -> record (false: gone), and requests
local records, dirty, gone, forgotten, Z, created, text
local expired = 0
local function others()
  local broken, retention, touch = {}, tonumber(argv[6]), argv[8] == '1'
  records, dirty, gone, forgotten, Z, created = {}, {}, {}, {}, {}, {}
  local function known(sku)
    if Q[sku] == nil then row(sku, call('HGET', stock, sku)) end
    return Q[sku]
  end
  local function version(sku) return V[sku] or tonumber(match(was[sku], '^%d+ %d+ (%d+)')) end
  local function parse(id, text)
    local status, at, expires, last, by, key, lines = match(text or '', '^(%a) (%d+) (%d+) (%d+) (%S+) (%S+)(.*)$')
    if not status then
      broken[id] = text
      return false
    end
    local rec = {id = id, status = status, at = tonumber(at), expires = tonumber(expires), last = last, by = by, key = key}
    for sku, q, c, r in gmatch(lines, '\n(%S+) (%d+) (%d+) (%d+)') do
      rec[#rec + 1] = {sku = sku, q = tonumber(q), c = tonumber(c), r = tonumber(r)}
    end
    records[id] = rec
    return rec
  end
  function text(rec)
    local t = {format('%s %d %d %s %s %s', rec.status, rec.at, rec.expires, rec.last, rec.by, rec.key)}
    for i, line in ipairs(rec) do t[i + 1] = format('%s %d %d %d', line.sku, line.q, line.c, line.r) end
    return concat(t, '\n')
  end
  local function finish(rec, status)
    rec.status, dirty[rec.id] = status, true
    if rec.expires > 0 then return schedule(now + retention, rec.id) end
    dirty[rec.id], records[rec.id] = nil, false -- it comes again when more is held
    gone[#gone + 1] = rec.id
  end
  -- a change of a line of rec, by so many units on hand and reserved
  local function move(rec, kind, sku, q, r, by)
    change(sku, Q[sku] + q, max(R[sku] + r, 0), format('%s %s %d %d %s %s %s ', kind, sku, q, r, rec.id, rec.last, by))
  end
  local function expire(rec)
    expired = expired + 1
    for _, line in ipairs(rec) do
      local left = line.q - line.c - line.r
      if left > 0 and known(line.sku) then move(rec, 'expire', line.sku, 0, -left, '*') end
      line.r = line.r + left
    end
    rec.last = firstText
    finish(rec, 'x')
  end

  -- settle what is due: holds end, ended ones and keys are forgotten
  local whose, at = {}, 0
  for _, member in ipairs(members) do
    if sub(member, 1, 1) ~= '+' then whose[#whose + 1] = member end
  end
  local those = fetch(holds, whose)
  for _, member in ipairs(members) do
    if n - first > most / 2 then -- reservations of many lines: the others have to wait
      behind = true
      break
    end
    local rec
    if sub(member, 1, 1) ~= '+' then
      at = at + 1
      rec = parse(member, those[at])
    end
    if rec and rec.status == 'h' and rec.expires <= now then
      expire(rec)
    elseif rec and rec.status == 'h' then
      schedule(rec.expires, member)
    else
      Z[#Z + 1] = member
      if rec then
        gone[#gone + 1], records[member] = member, false
        if rec.key ~= '-' then forgotten[#forgotten + 1] = rec.key end
      elseif sub(member, 1, 1) == '+' then
        forgotten[#forgotten + 1] = sub(member, 2)
      end
    end
  end
  local texts = {} -- id -> record that was not looked at yet
  for i, text in ipairs(fetch(holds, ids)) do texts[ids[i]] = text end
  local function find(id)
    if records[id] == nil and texts[id] then
      parse(id, texts[id])
      texts[id] = nil
    end
    return records[id]
  end

  -- the reservation that a request names, if it is open; else the answer
  local looked = 0 -- lines of reservations that requests looked through
  local function open(id)
    if looked > most or n - first > most then return nil, 'A' end
    local rec = find(id)
    looked = looked + (rec and #rec or 0)
    if not rec then return nil, broken[id] and 'U' or 'N' end
    if rec.status == 'h' and rec.expires > 0 and rec.expires <= now then expire(rec) end
    if rec.status == 'h' then return rec end
    return nil, rec.status == 'c' and 'C' or rec.status == 'r' and 'R' or 'E'
  end

  local apply = {}

  -- the lines of rec that are asked for with how much, or the answer
  local function pick(rec, from, to)
    local picked = {}
    if from == to then
      for _, line in ipairs(rec) do
        local left = line.q - line.c - line.r
        if left > 0 then picked[#picked + 1] = {line, left} end
      end
      return picked
    end
    local over, only = '', nil
    for i = from, to - 1, 2 do
      local sku, want, left, line = argv[i], number[argv[i + 1]], 0, nil
      for _, l in ipairs(rec) do
        if l.sku == sku then line, left = l, l.q - l.c - l.r end
      end
      if want > left then
        over = over .. format('%s %d %d\n', sku, want, left)
        local all = line and left == 0 and (line.r == 0 and 'C' or line.c == 0 and 'R') or false
        only = (only == nil or only == all) and all
      end
      picked[#picked + 1] = {line, want}
    end
    if over ~= '' then return nil, only or 'X' .. over end
    return picked
  end

  local function resolver(kind, status)
    return function()
      local id, k, print, by, from = argv[arg], argv[arg + 1], argv[arg + 2], argv[arg + 3], arg + 4
      local to = from
      while argv[to] ~= '' do to = to + 2 end
      arg = to + 1
      local rec, answer = open(id)
      local already = replay(k, print)
      if already then return already end
      if not rec then return answer end
      local picked
      picked, answer = pick(rec, from, to)
      if not picked then return answer end
      if kind == 'commit' then
        local short = ''
        for _, p in ipairs(picked) do
          local there = known(p[1].sku) or 0
          if there < p[2] then short = short .. format('%s %d %d\n', p[1].sku, p[2], there) end
        end
        if short ~= '' then return 'S' .. short end
      end
      for _, p in ipairs(picked) do
        local line, count = p[1], p[2]
        if known(line.sku) then move(rec, kind, line.sku, kind == 'commit' and -count or 0, -count, by) end
        line[status] = line[status] + count
      end
      rec.last, dirty[id] = firstText, true
      local left = 0
      for _, line in ipairs(rec) do left = left + line.q - line.c - line.r end
      if left == 0 then rec.status = status end
      answer = remember(k, print, text(rec))
      if left == 0 then finish(rec, status) end
      return answer
    end
  end
  apply.c, apply.r = resolver('commit', 'c'), resolver('release', 'r')

  function apply.e()
    local id, k, print, ttl = unpack(argv, arg, arg + 3)
    arg = arg + 4
    local rec, answer = open(id)
    local already = replay(k, print)
    if already then return already end
    if not rec then return answer end
    if rec.expires == 0 then return 'N' end
    rec.expires = math.min(now + ttl, rec.at + 86400000)
    dirty[id] = true
    schedule(rec.expires, id)
    return remember(k, print, text(rec))
  end

  function apply.p()
    local id, sku, count, by = unpack(argv, arg, arg + 3)
    arg, count = arg + 4, number[count]
    if unreadable[sku] then return 'U' end
    local there = Q[sku] and max(Q[sku] - R[sku], 0) or 0
    if count > there then return behind and 'A' or format('S%s %d %d\n', sku, count, there) end
    local rec = find(id)
    if broken[id] then return 'U' end
    if not rec then
      rec = {id = id, status = 'h', at = now, expires = 0, last = '0', by = by, key = '-', {sku = sku, q = 0, c = 0, r = 0}}
      records[id] = rec
    end
    move(rec, 'hold', sku, 0, count, by)
    rec.last, rec[1].q, dirty[id] = firstText, rec[1].q + count, true
    return 'k' .. text(rec)
  end

  function apply.s()
    local sku, k, print, q, force, asked, by, why = unpack(argv, arg, arg + 7)
    arg, q = arg + 8, number[q]
    local answer = replay(k, print)
    if answer then return answer end
    if unreadable[sku] then return 'U' end
    if asked ~= '' and number[asked] ~= version(sku) then return behind and 'A' or 'V' .. int(version(sku)) end
    if q < R[sku] and force ~= '1' then return behind and 'A' or 'B' .. int(R[sku]) end
    if not Q[sku] then created[#created + 1] = sku end
    change(sku, q, R[sku], format('set %s %d 0 * 0 %s %s', sku, q - (Q[sku] or 0), by, why))
    return remember(k, print, shown(sku))
  end

  function apply.a()
    local sku, k, print, delta, by, why = unpack(argv, arg, arg + 5)
    arg, delta = arg + 6, number[delta]
    local answer = replay(k, print)
    if answer then return answer end
    if unreadable[sku] then return 'U' end
    if not Q[sku] then return 'N' end
    local q = Q[sku] + delta
    if q < 0 then return format('S%s %d %d\n', sku, -delta, Q[sku]) end
    if q > 1000000000 then return 'T' end
    if delta < 0 and q < R[sku] then return behind and 'A' or 'B' .. int(R[sku]) end
    change(sku, q, R[sku], format('adjust %s %d 0 * 0 %s %s', sku, delta, by, why))
    return remember(k, print, shown(sku))
  end

  function apply.f()
    local sku, q, r, asked, q0, r0, by, why = unpack(argv, arg, arg + 7)
    arg, q, r = arg + 8, number[q], number[r]
    if not Q[sku] and not unreadable[sku] then return 'N' end
    if number[asked] ~= version(sku) then return 'V' .. int(version(sku)) end
    was[sku] = format('%s %s %d %s', q0, r0, version(sku), nowText)
    change(sku, q, r, format('set %s %d %d * 0 %s %s', sku, q - q0, r - r0, by, why))
    return 'k' .. shown(sku)
  end

  function apply.g()
    local sku = argv[arg]
    arg = arg + 1
    if behind then return 'A' end
    if unreadable[sku] then return 'U' end
    if not Q[sku] then return 'N' end
    return 'k' .. (V[sku] and shown(sku) or was[sku])
  end

  function apply.q()
    local id = argv[arg]
    arg = arg + 1
    local _, answer = open(id)
    local rec = records[id]
    if not rec or answer == 'A' then return answer end
    dirty[id] = dirty[id] or touch
    return 'k' .. text(rec)
  end

  function apply.w() return behind and 'A' or 'k' end
  return apply
end

local apply = #members > 0 and others()
local answers, count = {''}, 1
local k, print, final
while argv[arg] do
  local kind, answer = argv[arg], nil
  arg = arg + 1
  if kind == 'h' then
    answer = hold(argv[arg], argv[arg + 1], arg + 2, arg + 2, k, print, final)
    arg, k = arg + 5, nil
  elseif kind == 't' then
    local at = now + argv[arg]
    ends = int(at)
    begins, done = concat({'h', nowText, ends, firstText, ''}, ' '), 'k' .. ends
    if at < soonest then soonest = at end
    arg = arg + 1
  elseif kind == 'm' then
    local from = arg + 2
    local to = from
    while argv[to] ~= '' do to = to + 3 end
    answer = hold(argv[arg], argv[arg + 1], from, to - 3, k, print, final)
    arg, k = to + 1, nil
  elseif kind == 'H' then
    k, print, final = argv[arg], argv[arg + 1], argv[arg + 2]
    arg = arg + 3
  else
    apply = apply or others()
    answer = apply[kind]()
  end
  if answer then
    count = count + 1
    answers[count] = answer
  end
end
answers[1] = int(expired)

-- many is a command with more arguments than unpack bears
local function many(command, key, list)
  for i = 1, #list, 2000 do
    call(command, key, unpack(list, i, math.min(i + 1999, #list)))
  end
end
if records then
  for id in pairs(dirty) do
    if records[id] and dirty[id] then
      H[#H + 1] = id
      H[#H + 1] = text(records[id])
    end
  end
end
-- These find somebody else's value under a key before anything is written.
call('HLEN', holds)
call('ZCARD', registry)
if records then
  if #created > 0 then
    call('XLEN', ledger)
    call('SCARD', locations)
    for _, sku in ipairs(created) do call('ZADD', skus, '0', sku) end
    call('SADD', locations, argv[3])
  end
  if #forgotten > 0 then call('HLEN', keys) end
end
if n >= first then
  call('XADD', ledger, firstText .. '-0', 't', nowText, 's', concat(before, '\n'), 'e', concat(entries, '\n'))
  local set, message = {}, {firstText .. ' ' .. int(n)}
  for i, sku in ipairs(changed) do
    local t = shown(sku)
    set[2 * i - 1], set[2 * i] = sku, t
    message[i + 1] = sku .. ' ' .. t
  end
  set[#set + 1] = '#'
  set[#set + 1] = int(n)
  many('HSET', stock, set)
  call(argv[1], argv[2], concat(message, '\n'))
end
if records then
  many('HDEL', holds, gone) -- first: a reservation of Products may end and begin again in one call
end
many('HSET', holds, H)
if next(kept) then
  local answered = {}
  for k, yes in pairs(kept) do
    if yes then
      answered[#answered + 1] = k
      answered[#answered + 1] = K[k]
    end
  end
  many('HSET', keys, answered)
end
if records then
  many('HDEL', keys, forgotten)
  many('ZREM', due, Z)
end
many('ZADD', due, D)
if #members > 0 or #D == 0 then
  local soon = call('ZRANGE', due, '0', '0', 'WITHSCORES')
  if soon[1] then
    call('ZADD', registry, soon[2], argv[3])
  else
    call('ZREM', registry, argv[3])
  end
else -- the first one due is this one or was known before
  call('ZADD', registry, 'LT', int(soonest), argv[3])
end
-- the ledger is cut now and then: a little at a time
local keep, age = tonumber(argv[4]), tonumber(argv[5])
if n >= first and math.floor(n / 512) > math.floor((first - 1) / 512) then
  if keep > 0 then call('XTRIM', ledger, 'MINID', '~', int(n - keep)) end
  if age > 0 then
    for _ = 1, 1000 do
      local m = call('XRANGE', ledger, '-', '+', 'COUNT', '1')[1]
      if not m or tonumber(m[2][2]) >= now - age then break end
      call('XDEL', ledger, m[1])
    end
  end
end
return answers
