-- apply.lua: apply requests to the stock of one location, each by itself and all or nothing:
-- what is due is given back first, then come the simple holds, then the others in order. keys.go tells what the keys hold.
-- KEYS[1..8]  stock, holds, keys, due, ledger, skus of the location; registry, locations of its partition
-- ARGV[1]  PUBLISH or SPUBLISH      ARGV[2]  channel of the location's feed
-- ARGV[3]  the location's id
-- ARGV[4]  entries that the ledger keeps, 0 for no bound   ARGV[5]  milliseconds it keeps them, 0 likewise
-- ARGV[6]  milliseconds an answer is kept for its key, and a reservation after its end
-- ARGV[7]  most due reservations to settle in this call
-- ARGV[8]  1 when replicas are waited for: then a request that only repeats an answer writes it
--          once more, for WAIT knows of this connection's writes only
-- ARGV[9]  how many requests are not simple holds
-- then the SKUs that requests name, each once, and last "#", led by how many these are; a SKU is known by its place
-- then the simple holds, of one line and without a key: the number of their groups, and for each
-- group  ttl by quantity, what its holds have in common
--        singles place runs ids...   so many holds, one of each SKU from that place on, and so many runs:
--        (place count ids...)        each of so many holds of a SKU
-- then the fields of keys and the ids of reservations that the other requests name, two lists, each led by
-- its length; then these requests, each led by its letter (k: field of its key or "", f: fingerprint of the
-- request, by: who asks):
--   h ttl k f final id tail (sku quantity entry)* ""  hold; final: a refusal is kept too; tail and entry:
--                                             the end of the record and lines of the ledger, ready made
--   c|r id k f by (sku quantity)* ""          commit or release; without lines all that is held
--   e id k f ttl                              extend to now + ttl
--   p id sku quantity by                      hold more in a reservation that does not expire
--   s sku k f quantity force version by why   set; version "" for any, 0 for a new SKU
--   a sku k f delta by why                    adjust
--   f sku q r version q0 r0 by why            repair counters to q and r; the ledger knows of q0 and r0
--   g sku   q id   w                          read stock, read a reservation, nothing
-- Returns  how many reservations expired in this call, as text, or O alone: simple holds and others want
--   the same last units; nothing was done, ask in the order of arrival, none as simple
--   then for each group of simple holds <expiresAt>, and a line for each run, singles first, that is not held
--   to its end: its number, how many of it are held, and of the rest A, U or S<available> as below
--   then one text for each other request:
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
-- or a table costs as much as ten steps, and a number made text, or text a number, likewise. So
-- carts alike share one record's text, one line of the ledger, and a group one member of due.
local stock, holds, keys, due, ledger, skus, registry, locations = unpack(KEYS)
local argv, call, max, min, floor = ARGV, redis.call, math.max, math.min, math.floor
local match, gmatch, sub, concat, format = string.match, string.gmatch, string.sub, table.concat, string.format
local most = 2000 -- lines that a call works through: of holds, of what is due, of reservations looked at
local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local nowText = format('%d', now)

-- was is what was read of the rows, false where there is none; rows is what they are now
local N = argv[10] + 0
local was = call('HMGET', stock, unpack(argv, 11, 10 + N))
local rows = {unpack(was)}
local n = tonumber(was[N] or '') or floor((time[1] * 1000000 + time[2]) / 100)
local first = n + 1
local firstText = format('%d', first)

-- What is to be written: lines of the ledger, the first of which is made last; rows that change;
-- records; due times, and when the first of them is.
local L, changed, H, D, soonest = {''}, {}, {}, {}, math.huge

local members = call('ZRANGEBYSCORE', due, '-inf', nowText, 'LIMIT', '0', argv[7])
local behind = #members == tonumber(argv[7])
local arg = 11 + N -- of what comes next
local groups, requests = argv[arg] + 0, argv[9] ~= '0'

-- all but simple holds, made where it is needed: answers of keys to write, reservations, id -> record (false:
-- gone), and requests
local others, save, load, S
local kept, records, dirty, gone, forgotten, Z, created, text, flush
local expired, contended = 0, false
if requests or #members > 0 then others = function()
  -- rows, read: quantity (false: none), reserved, version once it has changed, what cannot be read; and at
  -- tells the place of a SKU
  local Q, R, V, unreadable, at = {}, {}, {}, {}, {}
  S = {unpack(argv, 11, 10 + N)} -- SKUs by place
  for i, sku in ipairs(S) do at[sku] = i end
  local function read(i)
    local q, r = match(rows[i] or '', '^(%d+) (%d+) %d+ %d+$')
    Q[i], R[i], V[i], unreadable[i] = q and q + 0, (r or 0) + 0, false, not q and rows[i]
  end
  local function shown(i) return format('%d %d %d %s', Q[i], R[i], V[i], nowText) end
  function save()
    for _, i in ipairs(changed) do
      if V[i] then rows[i] = shown(i) end
    end
  end
  -- a change of the counters of a row, which is one entry of the ledger
  local function change(i, q, r, line)
    n = n + 1
    L[#L + 1] = line
    if not V[i] and rows[i] == was[i] then changed[#changed + 1] = i end
    Q[i], R[i], V[i] = q, r, n
  end
  local function schedule(at, member, text)
    if at < soonest then soonest = at end
    local m = #D
    D[m + 1] = text or format('%d', at)
    D[m + 2] = member
  end
  local function free(i) return Q[i] and max(Q[i] - R[i], 0) or 0 end
  local function fetch(key, names)
    if #names == 0 then return names end
    return call('HMGET', key, unpack(names))
  end

  local K = {}
  kept = {}
  local given, ended = {}, {} -- keys and reservations to forget in time, of this call
  local function keep(k, answer)
    K[k] = answer
    kept[#kept + 1] = k
    kept[#kept + 1] = answer
  end
  local function replay(k, print)
    if not K[k] then return nil end
    local f, answer = match(K[k], '^(%S+) (.*)$')
    if not f then return 'U' end
    if f ~= print then return 'M' end
    if argv[8] == '1' then keep(k, K[k]) end
    return sub(answer, 1, 2) == '- ' and answer or '=' .. answer -- what is done begins with a letter, digit or id
  end
  local function remember(k, print, answer)
    if k ~= '' then
      keep(k, print .. ' ' .. answer)
      given[#given + 1] = k
    end
    return 'k' .. answer
  end

  local broken, retention, touch = {}, tonumber(argv[6]), argv[8] == '1'
  records, dirty, gone, forgotten, Z, created = {}, {}, {}, {}, {}, {}
  -- the row of a SKU that no request may have named, nil when there is none
  local function known(sku)
    local i = at[sku]
    if not i then
      i = #S + 1
      at[sku], S[i], was[i] = i, sku, call('HGET', stock, sku)
      rows[i] = was[i]
      read(i)
    end
    return Q[i] and i
  end
  local function version(i) return V[i] or Q[i] and match(rows[i], '(%d+) %d+$') + 0 or 0 end
  local function parse(id, text)
    local status, at, ends, last, by, key, sku, q, c, r, more =
      match(text or '', '^(%a) (%d+) (%d+) (%d+) (%S+) (%S+)\n(%S+) (%d+) (%d+) (%d+)(.*)$')
    if not status then
      broken[id] = text
      return false
    end
    local rec = {id = id, status = status, at = at, ends = ends, expires = ends + 0, last = last, by = by, key = key,
      {sku = sku, q = q + 0, c = c + 0, r = r + 0}}
    for sku, q, c, r in gmatch(more, '\n(%S+) (%d+) (%d+) (%d+)') do
      rec[#rec + 1] = {sku = sku, q = q + 0, c = c + 0, r = r + 0}
    end
    records[id] = rec
    return rec
  end
  function text(rec)
    local t = rec.status .. ' ' .. rec.at .. ' ' .. rec.ends .. ' ' .. rec.last .. ' ' .. rec.by .. ' ' .. rec.key
    for _, line in ipairs(rec) do t = t .. '\n' .. line.sku .. format(' %d %d %d', line.q, line.c, line.r) end
    return t
  end
  -- what a request left of rec, which is written if nothing changes it any more
  local function wrote(rec)
    local t = text(rec)
    dirty[rec.id] = dirty[rec.id] and t
    return t
  end
  local function finish(rec, status)
    rec.status, dirty[rec.id] = status, true
    if rec.expires > 0 then
      ended[#ended + 1], Z[#Z + 1] = rec.id, rec.id
      return
    end
    dirty[rec.id], records[rec.id] = nil, false -- it comes again when more is held
    gone[#gone + 1] = rec.id
  end
  -- a change of a line of rec, by so many units on hand and reserved
  local function move(rec, kind, sku, q, r, by)
    local i = known(sku)
    if i then change(i, Q[i] + q, max(R[i] + r, 0), kind .. ' ' .. sku .. format(' %d %d ', q, r) .. rec.id .. ' ' .. rec.last .. ' ' .. by .. ' ') end
  end
  local function expire(rec)
    expired = expired + 1
    for _, line in ipairs(rec) do
      local left = line.q - line.c - line.r
      if left > 0 then move(rec, 'expire', line.sku, 0, -left, '*') end
      line.r = line.r + left
    end
    rec.last = firstText
    finish(rec, 'x')
  end

  for i = 1, #members > 0 and N or 0 do read(i) end
  -- settle what is due, as much as one call may: holds end, ended ones and keys are forgotten
  local whose, turn = {}, 0
  for _, member in ipairs(members) do
    if #whose + #forgotten > most / 2 then break end
    turn = turn + 1
    local into = sub(member, 1, 1) == '+' and forgotten or whose
    for name in gmatch(member, '[^+~,]+') do into[#into + 1] = name end
  end
  local those, m = fetch(holds, whose), 0
  for i = 1, turn do
    local member = members[i]
    if n - first > most / 2 then -- reservations of many lines: the others have to wait
      turn = i - 1
      break
    end
    local kind, stays = sub(member, 1, 1), false
    for id in gmatch(kind == '+' and '' or member, '[^~,]+') do
      m = m + 1
      local rec = records[id] -- one that was extended is due twice, and may be in this call
      if rec == nil then rec = parse(id, those[m]) end
      if rec and kind == '~' then
        gone[#gone + 1], records[id] = id, false
        if rec.key ~= '-' then forgotten[#forgotten + 1] = rec.key end
      elseif rec and rec.status == 'h' and rec.expires <= now then
        expire(rec)
      elseif rec and rec.status == 'h' then
        stays = id == member -- its time is another now
        schedule(rec.expires, id, rec.ends)
      end
    end
    if not stays then Z[#Z + 1] = member end
  end
  behind = behind or turn < #members
  local texts = {} -- id -> record that was not looked at yet
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

  -- of the holds before, of one time to live: until when, how their records begin, their ids
  local span, ends, begins, held = nil, nil, nil, {}
  local function hold()
    if held[1] then schedule(now + span, concat(held, ','), ends) end
    held = {}
  end
  function flush()
    hold()
    if given[1] then schedule(now + retention, '+' .. concat(given, ',')) end
    if ended[1] then schedule(now + retention, '~' .. concat(ended, ',')) end
  end
  function apply.h()
    local ttl, k, print, final, id, tail = unpack(argv, arg, arg + 5)
    local from = arg + 6
    local to = from
    while argv[to] ~= '' do to = to + 3 end
    arg, to = to + 1, to - 3
    local answer = k ~= '' and replay(k, print)
    if answer then return answer end
    local short, bad
    for a = from, to, 3 do
      local sku, want = argv[a], argv[a + 1] + 0
      local i = at[sku]
      if not Q[i] or Q[i] - R[i] < want then
        bad = bad or unreadable[i] and sku
        short = (short or 'S') .. format('%s %d %d\n', sku, want, free(i))
        contended = contended or groups > 0 and rows[i] ~= was[i]
      end
    end
    if short then
      if bad then return 'U' .. bad end
      if behind then return 'A' end
      if final == '1' then remember(k, print, '- ' .. sub(short, 2)) end
      return short
    end
    if n - first > most then return 'A' end
    for a = from, to, 3 do
      local i = at[argv[a]]
      change(i, Q[i], R[i] + argv[a + 1], argv[a + 2])
    end
    if ttl ~= span then
      hold()
      span, ends = ttl, format('%d', now + ttl)
      begins = concat({'h', nowText, ends, firstText, ''}, ' ')
    end
    local h = #H
    held[#held + 1] = id
    H[h + 1] = id
    H[h + 2] = begins .. tail
    if k ~= '' then keep(k, print .. ' ' .. id .. ' ' .. ends) end -- forgotten with its reservation
    return 'k' .. ends
  end

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
      local sku, want, left, line = argv[i], argv[i + 1] + 0, 0, nil
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
          local i = known(p[1].sku)
          local there = i and Q[i] or 0
          if there < p[2] then short = short .. format('%s %d %d\n', p[1].sku, p[2], there) end
        end
        if short ~= '' then return 'S' .. short end
      end
      for _, p in ipairs(picked) do
        local line, count = p[1], p[2]
        move(rec, kind, line.sku, kind == 'commit' and -count or 0, -count, by)
        line[status] = line[status] + count
      end
      rec.last, dirty[id] = firstText, true
      local left = 0
      for _, line in ipairs(rec) do left = left + line.q - line.c - line.r end
      if left == 0 then finish(rec, status) end
      return remember(k, print, wrote(rec))
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
    rec.expires = min(now + ttl, rec.at + 86400000)
    rec.ends, dirty[id] = format('%d', rec.expires), true
    schedule(rec.expires, id, rec.ends)
    return remember(k, print, wrote(rec))
  end

  function apply.p()
    local id, sku, count, by = unpack(argv, arg, arg + 3)
    arg, count = arg + 4, count + 0
    local i = at[sku]
    if unreadable[i] then return 'U' end
    if count > free(i) then
      contended = contended or groups > 0 and rows[i] ~= was[i]
      return behind and 'A' or format('S%s %d %d\n', sku, count, free(i))
    end
    local rec = find(id)
    if broken[id] then return 'U' end
    if not rec then
      rec = {id = id, status = 'h', at = nowText, ends = '0', expires = 0, last = '0', by = by, key = '-', {sku = sku, q = 0, c = 0, r = 0}}
      records[id] = rec
    end
    move(rec, 'hold', sku, 0, count, by)
    rec.last, rec[1].q, dirty[id] = firstText, rec[1].q + count, true
    return 'k' .. wrote(rec)
  end

  function apply.s()
    local sku, k, print, q, force, asked, by, why = unpack(argv, arg, arg + 7)
    arg, q = arg + 8, q + 0
    local i, answer = at[sku], replay(k, print)
    if answer then return answer end
    if unreadable[i] then return 'U' end
    if asked ~= '' and asked + 0 ~= version(i) then return behind and 'A' or 'V' .. format('%d', version(i)) end
    if q < R[i] and force ~= '1' then return behind and 'A' or 'B' .. format('%d', R[i]) end
    if not Q[i] then created[#created + 1] = sku end
    change(i, q, R[i], format('set %s %d 0 * 0 %s %s', sku, q - (Q[i] or 0), by, why))
    return remember(k, print, shown(i))
  end

  function apply.a()
    local sku, k, print, delta, by, why = unpack(argv, arg, arg + 5)
    arg, delta = arg + 6, delta + 0
    local i, answer = at[sku], replay(k, print)
    if answer then return answer end
    if unreadable[i] then return 'U' end
    if not Q[i] then return 'N' end
    local q = Q[i] + delta
    if q < 0 then return format('S%s %d %d\n', sku, -delta, Q[i]) end
    if q > 1000000000 then return 'T' end
    if delta < 0 and q < R[i] then return behind and 'A' or 'B' .. format('%d', R[i]) end
    change(i, q, R[i], format('adjust %s %d 0 * 0 %s %s', sku, delta, by, why))
    return remember(k, print, shown(i))
  end

  function apply.f()
    local sku, q, r, asked, q0, r0, by, why = unpack(argv, arg, arg + 7)
    arg, q, r = arg + 8, q + 0, r + 0
    local i = at[sku]
    if not Q[i] and not unreadable[i] then return 'N' end
    if asked + 0 ~= version(i) then return 'V' .. format('%d', version(i)) end
    was[i] = format('%s %s %d %s', q0, r0, version(i), nowText)
    rows[i] = was[i] -- whatever it is
    change(i, q, r, format('set %s %d %d * 0 %s %s', sku, q - q0, r - r0, by, why))
    return 'k' .. shown(i)
  end

  function apply.g()
    local i = at[argv[arg]]
    arg = arg + 1
    if behind then return 'A' end
    if unreadable[i] then return 'U' end
    if not Q[i] then return 'N' end
    return 'k' .. (V[i] and shown(i) or rows[i])
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
  local function list()
    local names = {unpack(argv, arg + 1, arg + argv[arg])}
    arg = arg + 1 + #names
    return names
  end
  -- what the requests need, once the simple holds are worked through
  function load()
    local fields, ids = list(), list()
    for i, answer in ipairs(fetch(keys, fields)) do K[fields[i]] = answer end
    for i, text in ipairs(fetch(holds, ids)) do texts[ids[i]] = text end
    for i = 1, #S do read(i) end
  end
  return apply
end end

local apply = #members > 0 and others()
if apply then save() end

local answers, count = {''}, 1
arg = arg + 1
for _ = 1, groups do
  local expires, by, quantity, singles, i = now + argv[arg], argv[arg + 1], argv[arg + 2], argv[arg + 3] + 0, argv[arg + 4] - 1
  local runs = singles + argv[arg + 5]
  local ends, want, names = format('%d', expires), quantity + 0, {}
  -- what texts of the group have in common: records and lines of the ledger, around the SKU
  local record, rest = concat({'h ', nowText, ' ', ends, ' ', firstText, ' ', by, ' -\n'}), ' ' .. quantity .. ' 0 0'
  local line, tail = ' 0 ' .. quantity .. ' ', ' 0 ' .. by .. ' '
  local answer, asked = {ends}, 1
  arg = arg + 6
  for run = 1, runs do
    if run <= singles then
      i = i + 1
    else
      i, asked, arg = argv[arg] + 0, argv[arg + 1] + 0, arg + 2
    end
    local row, can = rows[i], asked
    local q, r = match(row or '', '^(%d+) (%d+) %d+ %d+$')
    local reserved = q and r + 0
    local free = q and q - reserved or 0
    if free < want * asked then
      if row ~= was[i] then return {'O'} end
      can = max(floor(free / want), 0)
      answer[#answer + 1] = format('%d %d %s', run, can, row and not q and 'U' or behind and 'A' or format('S%d', max(free - can * want, 0)))
    end
    if can > 0 then
      local sku, h, ids = argv[10 + i], #H, argv[arg]
      local text = record .. sku .. rest
      for k = arg, arg + can - 1 do
        H[h + 1] = argv[k] -- one by one: several at once are assigned last first, and grow the table twice
        H[h + 2] = text
        h = h + 2
      end
      if can > 1 then ids = concat(argv, ',', arg, arg + can - 1) end
      names[#names + 1] = ids
      L[#L + 1] = 'hold ' .. sku .. line .. ids .. tail
      n = n + can
      if row == was[i] then changed[#changed + 1] = i end
      rows[i] = q .. ' ' .. format('%d %d ', reserved + can * want, n) .. nowText
    end
    arg = arg + asked
  end
  if names[1] then
    D[#D + 1] = ends
    D[#D + 1] = names[2] and concat(names, ',') or names[1]
    soonest = min(soonest, expires)
  end
  count = count + 1
  answers[count] = answer[2] and concat(answer, '\n') or ends
end

if requests then
  apply = apply or others()
  load()
  while argv[arg] do
    local kind = argv[arg]
    arg, count = arg + 1, count + 1
    answers[count] = apply[kind]()
    if contended then return {'O'} end
  end
  save()
end
answers[1] = expired == 0 and '0' or format('%d', expired)

-- many is a command with more arguments than unpack bears
local function many(command, key, list)
  for i = 1, #list, 2000 do
    call(command, key, unpack(list, i, math.min(i + 1999, #list)))
  end
end
if records then
  flush()
  for id in pairs(dirty) do
    if records[id] and dirty[id] then
      H[#H + 1] = id
      H[#H + 1] = dirty[id] == true and text(records[id]) or dirty[id]
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
  local nText, l, set = format('%d', n), #L + 1, {}
  L[1], L[l] = concat({firstText, nText, nowText}, ' '), ''
  for m = 1, #changed do
    local i = changed[m]
    local sku = S and S[i] or argv[10 + i]
    L[l + 1] = sku
    L[l + 2] = was[i] or '0 0 0 0'
    set[2 * m - 1] = sku
    set[2 * m] = rows[i]
    l = l + 2
  end
  local message, m = concat(L, '\n'), #set
  call('XADD', ledger, firstText .. '-0', 'm', message)
  set[m + 1], set[m + 2] = '#', nText
  many('HSET', stock, set)
  call(argv[1], argv[2], message)
end
if records then
  many('HDEL', holds, gone) -- first: a reservation of Products may end and begin again in one call
end
many('HSET', holds, H)
if records then
  many('HSET', keys, kept)
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
  call('ZADD', registry, 'LT', format('%d', soonest), argv[3])
end
-- the ledger is cut now and then: a little at a time
if n >= first and floor(n / 512) > floor((first - 1) / 512) then
  local keep, age = tonumber(argv[4]), tonumber(argv[5])
  if keep > 0 then call('XTRIM', ledger, 'MINID', '~', format('%d', n - keep)) end
  if age > 0 then
    for _ = 1, 1000 do
      local m = call('XRANGE', ledger, '-', '+', 'COUNT', '1')[1]
      local at = m and match(m[2][2], '^%d+ %d+ (%d+)')
      if not at or at + 0 >= now - age then break end
      call('XDEL', ledger, m[1])
    end
  end
end
return answers
