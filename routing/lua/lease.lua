-- Lease calls of one provider: units of all its rolling windows at once, or nothing.
--
-- A leased call may arrive at the provider from now until `ahead` = market time of (now + use-by + transit). Its units
-- are booked under `ahead` and counted until `ahead` + window. Any rolling window [x, x + window) holds only arrivals of
-- leases with ahead >= x and granted before x + window; when the last of those was granted, all the others were still
-- counted. So no window ever holds more than the limit, at any speed, whatever the interleaving. A call that took longer
-- is booked anew as soon as its process knows, while it still counts: exact for delays of up to a window.
--
-- Key space (prefix gapless:{routing}:<era>:):
--   KEYS[1]   throttle:<provider>               hash
--     seen      newest market time; time never goes back
--     paused    market time until which the provider asked us to wait
--     factor, shrunk  share of the limits in use after a 429, and the market time it was set at
--     wanted    real time until which backfill stands back, because live work was refused and will be back
--     seq       number of the newest lease; a process that knows of a later one proves that Redis came back without its
--               last writes: then the windows count as full once, for nobody knows what else was booked
--   KEYS[1+i] budget:<scope>:<window>           hash, one rolling window; absent: nobody knows what was spent
--     head, tail, last  first bucket in the window, first bucket in the window + linger, last bucket written
--     live, back        units in the window by share
--     linger            live units in the window + linger: what backfill must count
--     slot, paced       present tenth of the window (usual hold included), and what backfill took in it: were it to take all
--                       at once, live work would find nothing for as long as a window lasts
--     l<i>, b<i>        units by share of leases with ahead in ((i - 1) * step, i * step]
--     or, for a window that PostgreSQL counts, a pool by share leased from there:
--     u:<share>, t:<share>, o:<share>, f:<share>, d:<share>   units, valid until (market), block, being filled until
--                                               (real), dry until (market)
-- ARGV: 1 static facts (JSON), 2 segments (JSON), 3 calls wanted (0: only look), 4 share live|backfill,
--   5 what to do with an absent window, a letter each: a say 'lost', e begin empty, f begin full,
--   6 use-by + transit (real us), 7 corrections (JSON: {{calls, ahead, {block, ...}, late}, ...}): calls that were never
--   made (late = 0) go back; calls that may have arrived after `ahead` (late = 1) count from now
--   8 when looking: units of each window that the provider says are used (JSON; -1: it does not say);
--   when leasing: the newest lease that the process knows of
-- Returns {calls, ahead (0: not to be refunded), wait (market us), code, index of the window, {block of each window},
--   number of this lease}, or JSON when looking.
local conf, segments = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local wanted, share, absent, hold = tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
local real = real_now()
local th = redis.call('HMGET', KEYS[1], 'seen', 'paused', 'factor', 'shrunk', 'wanted', 'seq')
local now = market(segments, real)
local ahead = market(segments, real + hold) - now
now = math.max(now, tonumber(th[1]) or 0)
ahead = now + ahead
local speed = speed_at(segments, real)
local is_live = share == 'live'
local mine = is_live and 'l' or 'b'

local factor = 1
if th[3] then factor = math.min(1, tonumber(th[3]) + (now - tonumber(th[4])) / conf.recover) end

local function pace_of(limit) return (limit.window + conf.hold * speed) / 10 end

local function linger_of(limit) return math.min(speed * 1000000, limit.window / 10) end

-- Drop what has left the window (and, for live units that backfill still counts, the window + linger).
local function advance(key, s, limit)
  local gone = {}
  local cut = math.floor((now - limit.window) / limit.step)
  for i = s.head, math.min(cut, s.last) do
    local v = redis.call('HMGET', key, 'l' .. whole(i), 'b' .. whole(i))
    if v[1] then s.live = s.live - tonumber(v[1]) end
    if v[2] then
      s.back = s.back - tonumber(v[2])
      gone[#gone + 1] = 'b' .. whole(i)
    end
  end
  s.head = math.max(s.head, cut + 1)
  cut = math.floor((now - limit.window - linger_of(limit)) / limit.step)
  for i = s.tail, math.min(cut, s.last) do
    local v = redis.call('HGET', key, 'l' .. whole(i))
    if v then
      s.linger = s.linger - tonumber(v)
      gone[#gone + 1] = 'l' .. whole(i)
    end
  end
  s.tail = math.max(s.tail, cut + 1)
  for i = 1, #gone, 500 do redis.call('HDEL', key, unpack(gone, i, math.min(i + 499, #gone))) end
end

local function save(key, s)
  redis.call('HSET', key, 'head', whole(s.head), 'tail', whole(s.tail), 'last', whole(s.last),
    'live', whole(s.live), 'back', whole(s.back), 'linger', whole(s.linger), 'slot', whole(s.slot), 'paced', whole(s.paced))
end

local function load(key, limit, letter)
  local v = redis.call('HMGET', key, 'head', 'tail', 'last', 'live', 'back', 'linger', 'slot', 'paced')
  local slot = math.floor(now / pace_of(limit))
  if v[1] then
    local s = {head = tonumber(v[1]), tail = tonumber(v[2]), last = tonumber(v[3]), live = tonumber(v[4]),
      back = tonumber(v[5]), linger = tonumber(v[6]), slot = slot, paced = 0}
    if tonumber(v[7]) == slot then s.paced = tonumber(v[8]) end
    advance(key, s, limit)
    return s
  end
  if letter == 'a' or wanted == 0 then return nil end
  local bucket = math.ceil(ahead / limit.step)
  local s = {head = bucket, tail = bucket, last = bucket, live = 0, back = 0, linger = 0, slot = slot, paced = 0}
  if letter == 'f' then
    redis.call('HSET', key, 'l' .. whole(bucket), limit.units)
    s.live, s.linger = limit.units, limit.units
  end
  return s
end

-- Take units of a lease from where they were booked, as long as that is still counted.
local function unbook(key, s, limit, units, at)
  local bucket = math.ceil(at / limit.step)
  local field = mine .. whole(bucket)
  local booked = tonumber(redis.call('HGET', key, field) or '0')
  if booked < units then return end
  redis.call('HINCRBY', key, field, -units)
  if is_live then
    if bucket >= s.head then s.live = s.live - units end
    if bucket >= s.tail then s.linger = s.linger - units end
  elseif bucket >= s.head then
    s.back = s.back - units
  end
end

-- Book units under a market time; false when it had to be a later one, because the head has moved on.
local function book(key, s, limit, units, at)
  local bucket = math.ceil(at / limit.step)
  local exact = bucket >= s.head
  bucket = math.max(bucket, s.head)
  redis.call('HINCRBY', key, mine .. whole(bucket), units)
  s.last = math.max(s.last, bucket)
  if is_live then
    s.live, s.linger = s.live + units, s.linger + units
  else
    s.back = s.back + units
  end
  return exact
end

-- Market us until the next units leave the window, so that asking again makes sense.
local function next_exit(key, s, limit)
  local exit = nil
  while s.head <= s.last do
    local v = redis.call('HMGET', key, 'l' .. whole(s.head), 'b' .. whole(s.head))
    local full = (v[1] and tonumber(v[1]) > 0) or (v[2] and tonumber(v[2]) > 0)
    if full then
      exit = s.head * limit.step + limit.window
      break
    end
    s.head = s.head + 1
  end
  if not is_live and s.linger > s.live then
    for i = s.tail, s.last do
      local v = redis.call('HGET', key, 'l' .. whole(i))
      if v and tonumber(v) > 0 then
        local lingering = i * limit.step + limit.window + linger_of(limit)
        exit = exit and math.min(exit, lingering) or lingering
        break
      end
    end
  end
  return math.max(1, (exit or now + speed * 1000000) - now)
end

local state, blocks = {}, {}
for i, limit in ipairs(conf.limits) do
  blocks[i] = 0
  if not limit.long then
    state[i] = load(KEYS[i + 1], limit, string.sub(absent, i, i))
    if not state[i] and wanted > 0 then return {0, 0, 0, 'lost', i - 1, blocks, 0} end
  end
end

local seq = tonumber(th[6]) or 0
if wanted > 0 then
  local known = tonumber(ARGV[8]) or 0
  if known > seq then
    for i, limit in ipairs(conf.limits) do
      local s = state[i]
      if s and limit.units > s.live + s.back then
        book(KEYS[i + 1], s, limit, limit.units - s.live - s.back, now)
      end
    end
    seq = known
  end
  seq = seq + 1
end

redis.call('HSET', KEYS[1], 'seen', whole(now), 'seq', whole(seq))
for _, r in ipairs(cjson.decode(ARGV[7])) do
  for i, limit in ipairs(conf.limits) do
    local units = r[1] * limit.cost
    if state[i] then
      unbook(KEYS[i + 1], state[i], limit, units, r[2])
      if r[4] == 1 then book(KEYS[i + 1], state[i], limit, units, now) end
    elseif limit.long and r[4] == 0 and tonumber(redis.call('HGET', KEYS[i + 1], 'o:' .. share) or '0') == r[3][i] then
      redis.call('HINCRBY', KEYS[i + 1], 'u:' .. share, units)
    end
  end
end

if wanted == 0 then
  local looked, said = {}, cjson.decode(ARGV[8] or '[]')
  for i, limit in ipairs(conf.limits) do
    local s = state[i]
    if s then
      -- Somebody else uses the key, or the provider counts otherwise: what we do not know of counts from now.
      local surplus = (said[i] or -1) - s.live - s.back
      if surplus > 0 then book(KEYS[i + 1], s, limit, math.min(surplus, limit.units), now) end
      save(KEYS[i + 1], s)
    end
    looked[i] = s and {s.live, s.back} or {-1, -1}
  end
  local paused = math.max(0, (tonumber(th[2]) or 0) - now)
  return cjson.encode({paused = paused, factor = factor, used = looked})
end

local calls, code, wait, where = wanted, 'ok', 0, -1
local function refuse(why, us, i)
  -- The window that frees last decides how long to wait and gives the reason.
  if calls > 0 or us > wait then code, wait, where = why, us, i - 1 end
  calls = 0
end

if (tonumber(th[2]) or 0) > now then refuse('paused', tonumber(th[2]) - now, 0) end
if calls > 0 and not is_live and (tonumber(th[5]) or 0) > real then
  refuse('yields', (tonumber(th[5]) - real) * speed, 0)
end

if code == 'ok' then
  for i, limit in ipairs(conf.limits) do
    local s = state[i]
    if limit.cost > limit.units then
      refuse('impossible', limit.window, i)
    elseif s then
      local most = math.max(limit.cost, math.floor(limit.units * factor))
      local fit = math.floor((most - s.back - (is_live and s.live or s.linger)) / limit.cost)
      local pace = fit
      if not is_live then pace = math.floor((math.max(limit.cost, math.ceil((most - s.linger) / 10)) - s.paced) / limit.cost) end
      if fit < 1 then
        refuse('full', next_exit(KEYS[i + 1], s, limit), i)
      elseif pace < 1 then
        refuse('yields', (s.slot + 1) * pace_of(limit) - now, i)
      else
        calls = math.min(calls, fit, pace)
      end
    end
  end
  if is_live and calls < wanted and (code == 'ok' or code == 'full') then
    -- Live work comes back when units are free; until it had its chance, backfill leaves them alone.
    redis.call('HSET', KEYS[1], 'wanted', whole(real + wait / speed + 100000))
  elseif is_live and th[5] then
    redis.call('HDEL', KEYS[1], 'wanted')
  end
end

if calls > 0 then
  for i, limit in ipairs(conf.limits) do
    if limit.long and calls > 0 then
      local v = redis.call('HMGET', KEYS[i + 1], 'u:' .. share, 't:' .. share, 'o:' .. share, 'f:' .. share, 'd:' .. share)
      local pool = (tonumber(v[2]) or 0) > now and tonumber(v[1]) or 0
      local fit = math.floor(pool / limit.cost)
      blocks[i] = tonumber(v[3]) or 0
      if fit >= 1 then
        calls = math.min(calls, fit)
      elseif (tonumber(v[5]) or 0) > now then
        refuse('full', tonumber(v[5]) - now, i)
      elseif (tonumber(v[4]) or 0) > real then
        refuse('filling', 20000 * speed, i)
      else
        redis.call('HSET', KEYS[i + 1], 'f:' .. share, whole(real + 1000000))
        refuse('fill', 0, i)
      end
    end
  end
end

local refundable = 1
for i, limit in ipairs(conf.limits) do
  local s, key, units = state[i], KEYS[i + 1], calls * limit.cost
  if s then
    if calls > 0 then
      if not book(key, s, limit, units, ahead) then refundable = 0 end
      if not is_live then s.paced = s.paced + units end
    end
    save(key, s)
  elseif calls > 0 then
    redis.call('HINCRBY', key, 'u:' .. share, -units)
  end
end
return {calls, ahead * refundable, math.ceil(wait), code, where, blocks, seq}
