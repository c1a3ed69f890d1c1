-- Prelude of the scripts that move a breaker. The same rules as routing/circuit.py, with its constants in `rules`.
--
-- Key space (prefix gapless:{routing}:<era>:):
--   pair:<source>:<capability>   hash
--     state    closed | open | half-open                 ver      counts openings and ramps; samples of another are stale
--     opens    openings in a row                         until    ms at which the open time ends
--     why      reason of the last opening                 closed   ms at which the breaker last closed
--     probe, probe_until   token of the one probe out, and ms until which it may answer
--     ramp     ms at which the ramp began, 0 outside one  auth     auth errors since the last good call
--     b<0-9>   "<second> <calls> <bad>" of the last ten seconds
--   The fields of health are described in sync.lua. All times are milliseconds of the server's clock.
local FIELDS = {'state', 'ver', 'opens', 'until', 'why', 'closed', 'probe', 'probe_until', 'ramp', 'auth'}

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function read_circuit(v)
  return {
    state = v[1] or 'closed', ver = tonumber(v[2]) or 0, opens = tonumber(v[3]) or 0, ends = tonumber(v[4]) or 0,
    why = v[5] or '', closed = tonumber(v[6]) or 0, probe = v[7] or '', probe_until = tonumber(v[8]) or 0,
    ramp = tonumber(v[9]) or 0, auth = tonumber(v[10]) or 0, moved = false,
  }
end

local function write_circuit(key, c)
  redis.call('HSET', key, 'state', c.state, 'ver', c.ver, 'opens', c.opens, 'until', string.format('%.0f', c.ends),
    'why', c.why, 'closed', string.format('%.0f', c.closed), 'probe', c.probe,
    'probe_until', string.format('%.0f', c.probe_until), 'ramp', string.format('%.0f', c.ramp), 'auth', c.auth)
end

local function forget_calls(key)
  redis.call('HDEL', key, 'b0', 'b1', 'b2', 'b3', 'b4', 'b5', 'b6', 'b7', 'b8', 'b9')
end

-- A ramp that has lasted long enough closes the breaker.
local function settle(c, rules, now)
  if c.state == 'half-open' and c.ramp > 0 and now - c.ramp >= rules.ramp[#rules.ramp][1] then
    c.state, c.closed, c.ramp, c.moved = 'closed', c.ramp + rules.ramp[#rules.ramp][1], 0, true
  end
end

local function open(key, c, rules, now, why, jitter)
  if c.state == 'closed' and (c.closed == 0 or now - c.closed >= rules.forget_ms) then c.opens = 0 end
  c.opens = c.opens + 1
  local ms = math.min(rules.longest_ms, rules.open_ms * 2 ^ (c.opens - 1)) * (1 - rules.spread * jitter)
  c.state, c.ends, c.why, c.ver = 'open', now + math.floor(ms), why, c.ver + 1
  c.probe, c.probe_until, c.ramp, c.auth, c.moved = '', 0, 0, 0, true
  forget_calls(key)
end

-- Whether a probe may go now: the open time is over, or the last probe never came back.
local function probe_due(c, now)
  if c.state == 'open' then return now >= c.ends end
  return c.state == 'half-open' and c.ramp == 0 and now >= c.probe_until
end

-- More bad calls than chance explains: the lower bound of the failure rate lies above what is tolerated.
local function surely_bad(rules, bad, calls)
  local p, z2 = bad / calls, rules.z * rules.z
  local middle, reach = p + z2 / (2 * calls), rules.z * math.sqrt(p * (1 - p) / calls + z2 / (4 * calls * calls))
  return (middle - reach) / (1 + z2 / calls) > rules.tolerated
end
