-- What the plan of a key does not include, learnt from the provider's own words; asked again after a while.
--
-- Key space: KEYS[1] = gapless:entitlement:<source>:<capability>, the provider's reason, with a time to live.
-- ARGV: reason ('' only reads), seconds to live. Returns the reason in force, '' when entitled.
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return redis.call('GET', KEYS[1]) or ''
