-- The fleet's retry budget: retries stay below a share of the calls of the last minute.
--
-- Key space: KEYS[1] = gapless:retries, a hash: c<second>, r<second> calls and retries by second.
-- ARGV: calls to add, 1 when a retry is asked for, share, least retries. Returns 1 when the retry may go.
local now = tonumber(redis.call('TIME')[1])
local calls, retry = tonumber(ARGV[1]), ARGV[2] == '1'
if calls > 0 then redis.call('HINCRBY', KEYS[1], 'c' .. now, calls) end
redis.call('EXPIRE', KEYS[1], 120)
if not retry then return 0 end
local flat, c, r, stale = redis.call('HGETALL', KEYS[1]), 0, 0, {}
for i = 1, #flat, 2 do
  local kind, at = string.match(flat[i], '^([cr])(%d+)$')
  if tonumber(at) < now - 60 then stale[#stale + 1] = flat[i]
  elseif kind == 'c' then c = c + tonumber(flat[i + 1])
  else r = r + tonumber(flat[i + 1]) end
end
if #stale > 0 then redis.call('HDEL', KEYS[1], unpack(stale)) end
if r + 1 > math.max(tonumber(ARGV[4]), c * tonumber(ARGV[3])) then return 0 end
redis.call('HINCRBY', KEYS[1], 'r' .. now, 1)
return 1
