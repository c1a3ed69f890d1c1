-- name: add
INSERT INTO provider_switches (provider, enabled, until, who, reason, as_of)
VALUES (%(provider)s, %(enabled)s, %(until)s, %(who)s, %(reason)s, %(as_of)s)

-- name: disabled
-- Newest switch of each source, where it says off and has not run out.
SELECT s.provider, s.until, s.who, s.reason, s.as_of
FROM (
    SELECT DISTINCT ON (p.provider) p.* FROM provider_switches p ORDER BY p.provider, p.switch_id DESC
) s
WHERE NOT s.enabled AND (s.until IS NULL OR s.until > gapless_now())
