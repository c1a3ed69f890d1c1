-- Prelude of the scripts that know market time. Times are microseconds since 1970.
--
-- A process hands over the replay's segments, never its own time: a process whose clock is wrong can't bend a window.
-- segments: {{real_start, market_start, speed}, ...}, sorted; empty when market time is the machine's.
local function real_now()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function segment_at(segments, real)
  local chosen = segments[1]
  for i = 2, #segments do
    if segments[i][1] <= real then chosen = segments[i] end
  end
  return chosen
end

local function market(segments, real)
  if #segments == 0 then return real end
  local s = segment_at(segments, real)
  return math.floor(s[2] + (real - s[1]) * s[3])
end

local function speed_at(segments, real)
  if #segments == 0 then return 1 end
  return segment_at(segments, real)[3]
end

-- Whole numbers beyond 14 digits: tostring would round them.
local function whole(number) return string.format('%.0f', number) end
