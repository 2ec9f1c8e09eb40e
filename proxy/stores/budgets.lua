-- Shared budget counters: every operation of one batch, atomically, in one round trip.
--
-- The arithmetic is that of proxy/core/budget/window.py, calendar.py and ledger.py; the suite of
-- tests/unit/flow/test_budgets_contract.py runs against both. All keys of a batch carry one hash tag, so a cluster
-- keeps them on one node.
--
-- KEYS  1 reservations   hash   rid -> "second" of admission, or "x": cancelled before it arrived
--       2 expiries       zset   rid by the second after which an abandoned reservation is forgotten
--       3 sentinels      hash   rule|dimension -> "epoch:closed_until", * -> "born:lost"; never expires, so its absence
--                               means lost state
--       4 pauses         hash   provider or provider:model -> second until which it takes nothing
--       5 members        zset   sidecar by its last heartbeat
--       6…               counters: a hash per window (h head bucket, u used, 0…n ring), a zset per set of slots
-- ARGV  one JSON array: operations one after the other, each a letter and its words (see the functions below). One
--       argument, because hundreds of small ones cost the sidecar far more than all else it does here.
-- Returns one array per operation. Times are seconds; what is returned is rounded to whole milliseconds.

local RESERVATIONS, EXPIRIES, SENTINELS, PAUSES, MEMBERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

-- The server's clock, read once: every sidecar is judged by the same one, and none needs its own to be right.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

-- A cursor over the words.
local words = cjson.decode(ARGV[1])
local at = 0
local function word() at = at + 1; return words[at] end
local function number() at = at + 1; return tonumber(words[at]) end

-- Whole numbers beyond 2^31 must not be written in scientific notation.
local function whole(value) return string.format('%.0f', value) end

-- Counters met in this batch, by key. Nobody else runs meanwhile, so each is read once, kept here and written once.
local met = {}

-- Reads the description of one counter: key, kind, limit, shape. The same key again is the same counter.
local function read_counter()
  local key = KEYS[number()]
  local kind = word()
  local limit = number()
  local c = met[key]
  if not c then
    c = { key = key, charges = {} }
    met[key] = c
  end
  c.kind, c.limit = kind, limit
  if kind == 'w' then         -- sliding window: width of a bucket, number of buckets
    c.width = number()
    c.size = number()
  elseif kind == 'c' then     -- calendar period: the boundaries around now, as the sidecar knows the time zone
    c.bounds = { number(), number(), number(), number() }
  else                        -- slots: how long one lives without being renewed
    c.lease = number()
  end
  return c
end

-- The bucket of a moment: its number since 1970, or for a calendar the period's first second.
local function bucket_of(c, second)
  if c.kind == 'w' then return math.floor(second / c.width) end
  local start = c.bounds[1]
  for i = 2, 4 do if second >= c.bounds[i] then start = c.bounds[i] end end
  return start
end

-- Lets buckets that have left the window expire; afterwards c.head and c.used hold what is true now.
-- Amortised O(1): every bucket is dropped once. A clock that steps back changes nothing: the head never does.
local function roll(c)
  if c.head then return end
  local bucket = bucket_of(c, now)
  local state = redis.call('HMGET', c.key, 'h', 'u')
  local head = tonumber(state[1])
  c.used = tonumber(state[2] or 0)
  if not head then
    c.head, c.used = bucket, 0
    return
  end
  c.head = math.max(head, bucket)
  if bucket <= head then return end
  if c.kind == 'c' or bucket - head >= c.size then
    redis.call('DEL', c.key)
    c.used = 0
    return
  end
  local gone = {}
  for passed = head + 1, bucket do gone[#gone + 1] = whole(passed % c.size) end
  local charges = redis.call('HMGET', c.key, unpack(gone))
  for i = 1, #gone do c.used = c.used - tonumber(charges[i] or 0) end
  redis.call('HDEL', c.key, unpack(gone))
  redis.call('HSET', c.key, 'h', whole(bucket), 'u', whole(c.used))
end

-- Lets slots of the dead run out; afterwards c.used is how many are taken.
local function count_slots(c)
  if c.used then return end
  redis.call('ZREMRANGEBYSCORE', c.key, '-inf', whole(math.floor(now * 1000)))
  c.used = redis.call('ZCARD', c.key)
end

-- Where a bucket's charge lies in the hash.
local function place(c, bucket)
  if c.kind == 'c' then return '0' end
  return whole(bucket % c.size)
end

-- Changes one bucket's charge and the sum.
local function change(c, bucket, by)
  local field = place(c, bucket)
  local charged = c.charges[field]
  if not charged then charged = tonumber(redis.call('HGET', c.key, field) or 0) end
  -- State may have been lost in part: a refund never takes more than is there.
  by = math.max(by, -charged)
  c.charges[field] = charged + by
  c.used = c.used + by
  c.is_changed = true
end

-- Writes what a batch has changed. A key lives for two windows after its last change, slots for two leases.
local function write(c)
  if not c.is_changed then return end
  c.is_changed = false
  local life
  if c.kind == 's' then
    life = 2 * c.lease
  else
    local fields = { 'h', whole(c.head), 'u', whole(c.used) }
    for field, charged in pairs(c.charges) do
      fields[#fields + 1] = field
      fields[#fields + 1] = whole(charged)
    end
    redis.call('HSET', c.key, unpack(fields))
    if c.kind == 'c' then life = 2 * 32 * 86400 else life = 2 * c.width * c.size end
  end
  redis.call('EXPIRE', c.key, whole(math.ceil(life)))
end

-- Seconds until the amount fits if nothing else is charged.
local function wait_of(c, amount)
  if c.kind == 's' then return 1 end
  if c.kind == 'c' then
    for i = 1, 4 do if c.bounds[i] > now then return c.bounds[i] - now end end
    return 60
  end
  write(c)
  local surplus = c.used + amount - c.limit
  local charges = {}
  local all = redis.call('HGETALL', c.key)
  for i = 1, #all, 2 do charges[all[i]] = tonumber(all[i + 1]) end
  for bucket = c.head - c.size + 1, c.head do
    surplus = surplus - (charges[place(c, bucket)] or 0)
    if surplus <= 0 then return math.max(0, (bucket + c.size) * c.width - now) end
  end
  return c.width * c.size
end

-- The era of the whole state: when it began, and whether charges of an earlier one were lost with it. Every heartbeat
-- keeps it, so whoever finds none while charging (known = nil) meets a store that was emptied since; whoever finds
-- another one than it knows says so for all, also for budgets that it has never used.
local era
local function era_of(known)
  if not era then
    local found = redis.call('HGET', SENTINELS, '*')
    if found then
      local colon = string.find(found, ':', 1, true)
      era = { born = tonumber(string.sub(found, 1, colon - 1)), lost = string.sub(found, colon + 1) == '1' }
    else
      era = { born = math.floor(now * 1000), lost = known ~= 0, is_changed = true }
    end
  end
  if known and known ~= 0 and known ~= era.born and not era.lost then era.lost, era.is_changed = true, true end
  if era.is_changed then
    redis.call('HSET', SENTINELS, '*', whole(era.born) .. (era.lost and ':1' or ':0'))
    era.is_changed = false
  end
  return era
end

-- When what was admitted before a loss has left the counter.
local function left_by(c, lost_at)
  if c.kind == 'w' then return lost_at + c.width * c.size end
  if c.kind == 's' then return lost_at + c.lease end
  local open_at = now + 60
  for i = 4, 1, -1 do if c.bounds[i] > lost_at then open_at = c.bounds[i] end end
  return open_at
end

-- Asks whether state was lost: a sentinel that is missing, or younger than the one a sidecar knows, says so.
local function ask_sentinel(c, sentinel, known)
  local found = redis.call('HGET', SENTINELS, sentinel)
  local epoch, closed = 0, 0
  if found then
    local colon = string.find(found, ':', 1, true)
    epoch, closed = tonumber(string.sub(found, 1, colon - 1)), tonumber(string.sub(found, colon + 1))
  end
  c.epoch = epoch
  if found and (known == 0 or known == epoch) then return closed end
  -- A sidecar that never used the budget may open it; one that did knows that charges are missing.
  local lost_at = now
  if found then lost_at = epoch / 1000 end
  if not found then
    epoch = math.floor(now * 1000)
    c.epoch = epoch
    if known == 0 then
      redis.call('HSET', SENTINELS, sentinel, whole(epoch) .. ':0')
      return 0
    end
  end
  -- What was lost had been admitted before the loss, so it has left every window one window later.
  local open_at = left_by(c, lost_at)
  redis.call('HSET', SENTINELS, sentinel, whole(epoch) .. ':' .. whole(math.ceil(open_at)))
  return open_at
end

-- When a counter may be used again after its state was lost; 0 when it may now. Remembers and hands back its epoch.
local asked = {}
local function closed_until(c, sentinel, known)
  local question = sentinel .. ':' .. known
  local answer = asked[question]
  if answer then
    c.epoch = answer.epoch
    return answer.closed
  end
  local closed = ask_sentinel(c, sentinel, known)
  local state = era_of(nil)
  if state.lost then closed = math.max(closed, left_by(c, state.born / 1000)) end
  asked[question] = { epoch = c.epoch, closed = closed }
  return closed
end

local operations = {}

-- A  rid, keep, pauses, n × (counter, amount, sentinel, epoch): charge all counters or none.
-- Returns 1, 0, 0, then (left, epoch) of each; or 0, wait in ms, which one (-1 paused, -2 closed, -3 cancelled), the same.
operations.A = function()
  local rid, keep, pauses = word(), number(), number()
  local paused = 0
  for _ = 1, pauses do
    local until_s = tonumber(redis.call('HGET', PAUSES, word()) or 0)
    if until_s > paused then paused = until_s end
  end
  local n = number()
  local counters, amounts, waits = {}, {}, {}
  local closed = 0
  for i = 1, n do
    local c = read_counter()
    counters[i], amounts[i] = c, number()
    local sentinel, known = word(), number()
    closed = math.max(closed, closed_until(c, sentinel, known))
    -- Count what is used now: a window rolls on, slots of the dead run out.
    if c.kind == 's' then count_slots(c) else roll(c) end
  end
  -- The same reservation asked for twice is one; cancelled before it came, it is none.
  local earlier = redis.call('HGET', RESERVATIONS, rid)
  local verdict, wait, short = 1, 0, 0
  if earlier == 'x' then
    verdict, short = 0, -3
  elseif not earlier then
    if paused > now then
      verdict, wait, short = 0, paused - now, -1
    elseif closed > now then
      verdict, wait, short = 0, closed - now, -2
    else
      for i = 1, n do
        local c = counters[i]
        if c.used + amounts[i] > c.limit then
          local longer = wait_of(c, amounts[i])
          if verdict == 1 or longer > wait then wait, short = longer, i end
          verdict = 0
        end
      end
    end
    if verdict == 1 then
      -- Everything has room: charge everything, and remember when, for whoever settles.
      for i = 1, n do
        local c = counters[i]
        if c.kind == 's' then
          redis.call('ZADD', c.key, whole(math.floor((now + c.lease) * 1000)), rid)
          c.used = c.used + 1
          c.is_changed = true
        else
          change(c, c.head, amounts[i])
        end
      end
      redis.call('HSET', RESERVATIONS, rid, string.format('%.3f', now))
      redis.call('ZADD', EXPIRIES, whole(now + keep), rid)
    end
  end
  local reply = { verdict, math.ceil(wait * 1000), short }
  for i = 1, n do
    reply[#reply + 1] = math.max(0, math.floor(counters[i].limit - counters[i].used))
    reply[#reply + 1] = counters[i].epoch
  end
  return reply
end

-- S  rid, keep, marks, n × (counter, charged, spent): correct charges in the bucket of their admission; free the slots.
-- Cancelling is spending nothing. With marks = 1 an unknown rid is remembered, in case its admission is still under way.
operations.S = function()
  local rid, keep, marks, n = word(), number(), number(), number()
  local admitted = redis.call('HGET', RESERVATIONS, rid)
  local known = admitted and admitted ~= 'x'
  local second = known and tonumber(admitted) or 0
  for _ = 1, n do
    local c = read_counter()
    local charged, spent = number(), number()
    if known then
      if c.kind == 's' then
        -- Counted anew only where it is already known: the next batch reads it anyway.
        if redis.call('ZREM', c.key, rid) == 1 and c.used then c.used = c.used - 1 end
      elseif charged ~= spent then
        roll(c)
        local bucket, oldest = bucket_of(c, second), c.head
        if c.kind == 'w' then oldest = c.head - c.size + 1 end
        -- A bucket that has left the window has nothing to give back; an overrun is charged to the present.
        if bucket >= oldest then change(c, bucket, spent - charged)
        elseif spent > charged then change(c, c.head, spent - charged) end
      end
    end
  end
  if known then
    redis.call('HDEL', RESERVATIONS, rid)
    redis.call('ZREM', EXPIRIES, rid)
  elseif marks == 1 then
    redis.call('HSET', RESERVATIONS, rid, 'x')
    redis.call('ZADD', EXPIRIES, whole(now + keep), rid)
  end
  return { known and 1 or 0 }
end

-- R  lease, key, n × rid: renew the slots that are still held here. Returns how many of them were still there.
operations.R = function()
  local lease, key, n = number(), KEYS[number()], number()
  local score, held = whole(math.floor((now + lease) * 1000)), 0
  redis.call('ZREMRANGEBYSCORE', key, '-inf', whole(math.floor(now * 1000)))
  for _ = 1, n do
    local rid = word()
    -- XX: what has run out stays lost, or a sidecar back from a pause would take slots that others hold now.
    redis.call('ZADD', key, 'XX', score, rid)
    if redis.call('ZSCORE', key, rid) then held = held + 1 end
  end
  redis.call('EXPIRE', key, whole(math.ceil(2 * lease)))
  return { held }
end

-- H  sidecar, alive, era: I am here, and this is the era of the state that I know (0: none). Forgets reservations abandoned long ago, a hundred at a time.
-- Returns how many sidecars were heard of within `alive` seconds, its era, then the pauses in force: name, milliseconds left.
operations.H = function()
  local sidecar, alive, known = word(), number(), number()
  redis.call('ZADD', MEMBERS, string.format('%.3f', now), sidecar)
  redis.call('ZREMRANGEBYSCORE', MEMBERS, '-inf', string.format('(%.3f', now - alive))
  local gone = redis.call('ZRANGEBYSCORE', EXPIRIES, '-inf', whole(now), 'LIMIT', 0, 100)
  if #gone > 0 then
    redis.call('HDEL', RESERVATIONS, unpack(gone))
    redis.call('ZREM', EXPIRIES, unpack(gone))
  end
  local reply = { redis.call('ZCARD', MEMBERS), era_of(known).born }
  local pauses = redis.call('HGETALL', PAUSES)
  for i = 1, #pauses, 2 do
    local left = tonumber(pauses[i + 1]) - now
    if left <= 0 then
      redis.call('HDEL', PAUSES, pauses[i])
    else
      reply[#reply + 1] = pauses[i]
      reply[#reply + 1] = math.ceil(left * 1000)
    end
  end
  return reply
end

-- P  name, seconds: a provider has said that it takes nothing for so long. Only ever lengthens.
operations.P = function()
  local name, seconds = word(), number()
  local known = tonumber(redis.call('HGET', PAUSES, name) or 0)
  if now + seconds > known then redis.call('HSET', PAUSES, name, string.format('%.3f', now + seconds)) end
  return { 1 }
end

-- V  n × counter: look without charging. Returns what is used of each, and milliseconds until it is whole again.
operations.V = function()
  local reply = {}
  for _ = 1, number() do
    local c = read_counter()
    local reset = 0
    if c.kind == 's' then
      count_slots(c)
    else
      roll(c)
      if c.used > 0 then reset = wait_of(c, c.limit) end
    end
    reply[#reply + 1] = math.floor(c.used)
    reply[#reply + 1] = math.ceil(reset * 1000)
  end
  return reply
end

local replies = {}
while at < #words do
  replies[#replies + 1] = operations[word()]()
end
for _, c in pairs(met) do write(c) end
return replies
