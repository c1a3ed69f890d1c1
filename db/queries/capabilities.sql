-- name: current
-- Newest word on each source and capability.
SELECT DISTINCT ON (c.provider, c.capability) c.provider, c.capability, c.eligible, c.reason, c.settle_s
FROM source_capabilities c
ORDER BY c.provider DESC, c.capability DESC, c.as_of DESC

-- name: add
INSERT INTO source_capabilities (provider, capability, eligible, reason, settle_s, as_of)
VALUES (%(provider)s, %(capability)s, %(eligible)s, %(reason)s, %(settle_s)s, %(as_of)s)
ON CONFLICT DO NOTHING
