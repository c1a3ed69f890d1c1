-- Claim the fleet's one probe of a source that has been open long enough.
--
-- Key space: KEYS[1] pair:<source>:<capability>, see circuit.lua.
-- ARGV: 1 rules (JSON), 2 token, 3 ms within which the probe answers or is given up
-- Returns 1 when the caller is the probe, 0 when it may not go.
local rules, now = cjson.decode(ARGV[1]), now_ms()
local c = read_circuit(redis.call('HMGET', KEYS[1], unpack(FIELDS)))
settle(c, rules, now)
if not probe_due(c, now) then return 0 end
c.state, c.probe, c.probe_until = 'half-open', ARGV[2], now + tonumber(ARGV[3])
write_circuit(KEYS[1], c)
return 1
