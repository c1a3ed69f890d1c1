-- Exchange with the fleet: what one process saw since the last time, against what the fleet knows.
--
-- Key space (prefix gapless:{routing}:<era>:):
--   KEYS[1]    retries                       hash: pool (retries that may be made now), at (ms)
--   KEYS[1+i]  pair:<source>:<capability>    hash: the breaker's fields of circuit.lua, and
--     lat, err, cmp and lat_at, err_at, cmp_at   terms of health as of their last sample, and ms of that
--     base, base_n, base_at                  usual latency (ln ms), samples behind it, ms of the last
--     full, full_n, full_at                  usual completeness by the calendar alone, likewise
--     off_until, off_why, off_n              not entitled until (ms), the provider's words, refusals in a row
--     ok                                     ms of the last good answer
--     calls_at, calls                        faded count of calls, for the share of traffic
--     error, error_at                        last error and its ms
-- ARGV: 1 rules (JSON), 2 jitter in [0, 1), 3 calls made, 4 retries wanted, 4+i samples of pair i (JSON) or ''
-- Returns JSON {retries, {{state, ver, share, wait ms, why, lat, err, cmp, base ms, full, off ms, off why, calls}, ...}}.
local rules, jitter, now = cjson.decode(ARGV[1]), tonumber(ARGV[2]), now_ms()

local function text(number) return string.format('%.9g', number) end
local function stamp(number) return string.format('%.0f', number) end

-- A term of health returns to 1 by half in every half-life without samples.
local function relax(term, at)
  if not term then return 1 end
  return 1 - (1 - tonumber(term)) * 2 ^ (-math.max(0, now - tonumber(at)) / rules.half_life_ms)
end

local function blend(term, mean, count)
  return term + (mean - term) * (1 - (1 - rules.weight) ^ count)
end

-- What is usual moves slowly: the plain mean at first, then with a time constant.
local function usual(value, count, at, mean, more)
  if not value then return mean, more end
  value, count = tonumber(value), tonumber(count)
  if count < rules.usual_least then return value + (mean - value) * more / (count + more), count + more end
  local elapsed = math.min(60000, math.max(0, now - tonumber(at)))
  return value + (mean - value) * (1 - math.exp(-elapsed / rules.usual_ms)), count + more
end

local HEALTH = {'lat', 'lat_at', 'err', 'err_at', 'cmp', 'cmp_at', 'base', 'base_n', 'base_at', 'full', 'full_n', 'full_at',
  'off_until', 'off_why', 'off_n', 'ok', 'calls', 'calls_at'}
local ALL = {}
for _, field in ipairs(FIELDS) do ALL[#ALL + 1] = field end
for _, field in ipairs(HEALTH) do ALL[#ALL + 1] = field end
for i = 0, rules.buckets - 1 do ALL[#ALL + 1] = 'b' .. i end

local function recent(v, second, slot, calls, bad)
  for i = 0, rules.buckets - 1 do
    local at, n, m = string.match(v[#FIELDS + #HEALTH + 1 + i] or '', '^(%d+) (%d+) (%d+)$')
    if at and tonumber(at) > second - rules.buckets and tonumber(at) <= second then
      calls, bad = calls + tonumber(n), bad + tonumber(m)
      if i == slot then slot = {tonumber(n), tonumber(m)} end
    end
  end
  return calls, bad, type(slot) == 'table' and slot or {0, 0}
end

local function record(key, v, c, sample)
  if sample.ver ~= c.ver or not (c.state == 'closed' or c.ramp > 0) then return end
  local second = math.floor(now / rules.bucket_ms)
  local slot = second % rules.buckets
  local calls, bad, mine = recent(v, second, slot, sample.calls, sample.bad)
  redis.call('HSET', key, 'b' .. slot,
    string.format('%.0f %d %d', second, mine[1] + sample.calls, mine[2] + sample.bad))
  -- A good call between them ends a burst of auth errors.
  local auth = sample.auth
  if sample.calls > sample.bad then c.auth = 0 else c.auth = c.auth + auth end
  if sample.trip ~= '' then
    open(key, c, rules, now, sample.trip, jitter)
  elseif c.auth >= rules.auth_burst then
    open(key, c, rules, now, 'auth', jitter)
  elseif calls >= rules.least_calls and surely_bad(rules, bad, calls) then
    open(key, c, rules, now, 'failures', jitter)
  elseif c.ramp > 0 and calls >= rules.ramp_least and bad == calls then
    open(key, c, rules, now, 'failures', jitter)
  end
  if auth > 0 or sample.calls > sample.bad then c.moved = true end
end

local function probed(key, c, sample)
  if c.state ~= 'half-open' or c.ramp > 0 or c.probe ~= sample.probe then return end
  if sample.verdict == 'ok' then
    c.ramp, c.ver, c.probe, c.auth, c.moved = now, c.ver + 1, '', 0, true
    forget_calls(key)
  elseif sample.verdict == 'bad' then
    open(key, c, rules, now, sample.why, jitter)
  else
    c.state, c.ends, c.probe, c.moved = 'open', now, '', true
  end
end

local function share_and_wait(c)
  if c.state == 'closed' then return 1, 0 end
  if c.state == 'open' then return 0, math.max(0, c.ends - now) end
  if c.ramp == 0 then return 0, math.max(0, c.probe_until - now) end
  for _, step in ipairs(rules.ramp) do
    if now - c.ramp < step[1] then return step[2], 0 end
  end
  return 1, 0
end

local function exchange(key, packed)
  local v = redis.call('HMGET', key, unpack(ALL))
  local c, h = read_circuit(v), {}
  for i, field in ipairs(HEALTH) do h[field] = v[#FIELDS + i] or nil end
  settle(c, rules, now)
  local lat, err, cmp = relax(h.lat, h.lat_at), relax(h.err, h.err_at), relax(h.cmp, h.cmp_at)
  local fade = 2 ^ (-math.max(0, now - (tonumber(h.calls_at) or now)) / rules.half_life_ms)
  local calls = (tonumber(h.calls) or 0) * fade
  if packed ~= '' then
    local s, out = cjson.decode(packed), {}
    local function put(...) for _, value in ipairs({...}) do out[#out + 1] = value end end
    if s.lat_n > 0 then
      lat = blend(lat, s.lat / s.lat_n, s.lat_n)
      put('lat', text(lat), 'lat_at', stamp(now))
    end
    if s.good + s.failed > 0 then
      err = blend(err, s.good / (s.good + s.failed), s.good + s.failed)
      calls = calls + s.good + s.failed
      put('err', text(err), 'err_at', stamp(now), 'calls', text(calls), 'calls_at', stamp(now))
    end
    if s.cmp_n > 0 then
      cmp = blend(cmp, s.cmp / s.cmp_n, s.cmp_n)
      h.full, h.full_n = usual(h.full, h.full_n, h.full_at, s.full / s.cmp_n, s.cmp_n)
      put('cmp', text(cmp), 'cmp_at', stamp(now), 'full', text(h.full), 'full_n', h.full_n, 'full_at', stamp(now))
    end
    if s.good > 0 then
      h.base, h.base_n = usual(h.base, h.base_n, h.base_at, s.ln_ms / s.good, s.good)
      put('base', text(h.base), 'base_n', h.base_n, 'base_at', stamp(now), 'ok', stamp(now), 'off_n', 0)
      h.ok, h.off_n = stamp(now), '0'
    end
    if s.off ~= '' then
      local refusals = (tonumber(h.off_n) or 0) + 1
      put('off_n', refusals)
      -- One symbol that the plan excludes is not the capability: whoever has answered is believed for a while.
      if not h.ok or refusals >= rules.off_least then
        h.off_until, h.off_why = now + rules.off_ms, s.off
        put('off_until', stamp(h.off_until), 'off_why', s.off)
      end
    end
    if s.error ~= '' then put('error', s.error, 'error_at', stamp(now)) end
    if s.probe ~= '' then probed(key, c, s) end
    if s.calls > 0 or s.trip ~= '' then record(key, v, c, s) end
    if #out > 0 then redis.call('HSET', key, unpack(out)) end
    redis.call('EXPIRE', key, 172800)
  end
  if c.moved then write_circuit(key, c) end
  local share, wait = share_and_wait(c)
  local base = (tonumber(h.base_n) or 0) >= rules.usual_least and math.exp(tonumber(h.base)) or 0
  local full = (tonumber(h.full_n) or 0) >= rules.usual_least and tonumber(h.full) or 0
  local off = math.max(0, (tonumber(h.off_until) or 0) - now)
  return {c.state, c.ver, share, wait, c.why, lat, err, cmp, base, full, off, off > 0 and h.off_why or '', calls}
end

-- Retries: a share of the calls, fading, and a trickle so that a quiet fleet may retry at all.
local function retries()
  local calls, wanted = tonumber(ARGV[3]), tonumber(ARGV[4])
  local v = redis.call('HMGET', KEYS[1], 'pool', 'at')
  local elapsed = math.max(0, now - (tonumber(v[2]) or now))
  local pool = (tonumber(v[1]) or rules.retry_floor) * 2 ^ (-elapsed / rules.half_life_ms)
  if pool < rules.retry_floor then pool = math.min(rules.retry_floor, pool + elapsed / 1000) end
  pool = pool + rules.retry_share * calls
  local granted = math.min(wanted, math.floor(pool))
  if calls > 0 or granted > 0 then redis.call('HSET', KEYS[1], 'pool', text(pool - granted), 'at', stamp(now)) end
  return granted
end

local out = {}
for i = 2, #KEYS do out[i - 1] = exchange(KEYS[i], ARGV[3 + i]) end
return cjson.encode({retries(), out})
