-- name: current
-- Newest row of every symbol under the name in force.
SELECT u.symbol, u.symbol_id, u.tier, u.calendar, u.exchange, u.active FROM universe u

-- name: members
SELECT u.symbol_id, u.symbol, u.tier, u.calendar, u.exchange
FROM universe u
WHERE u.active = %(active)s AND (%(tier)s::text IS NULL OR u.tier = %(tier)s)
ORDER BY u.symbol

-- name: resolve
-- Members under the names that they had at an instant.
SELECT n.symbol_id, n.name, u.tier, u.calendar, u.exchange
FROM (SELECT coalesce(%(at)s::timestamptz, gapless_now()) AS instant OFFSET 0) a
CROSS JOIN gapless_names(%(names)s::text[], 'infinity') n
CROSS JOIN LATERAL (
    SELECT s.tier, s.calendar, s.exchange FROM symbol_universe s
    WHERE s.symbol_id = n.symbol_id ORDER BY s.version DESC LIMIT 1
) u
WHERE n.valid_from <= a.instant AND n.valid_to > a.instant

-- name: resolve_ever
-- The newest holder of each name, under that name.
SELECT DISTINCT ON (n.name) n.symbol_id, n.name, u.tier, u.calendar, u.exchange
FROM gapless_names(%(names)s::text[], 'infinity') n
CROSS JOIN LATERAL (
    SELECT s.tier, s.calendar, s.exchange FROM symbol_universe s
    WHERE s.symbol_id = n.symbol_id ORDER BY s.version DESC LIMIT 1
) u
ORDER BY n.name, n.valid_to DESC

-- name: version_number
SELECT coalesce(max(v.version), 0) FROM universe_versions v

-- name: version
-- Grows with each load and each rename.
SELECT (SELECT coalesce(max(v.version), 0) FROM universe_versions v)
     + (SELECT count(*) FROM symbol_names n WHERE n.valid_to < 'infinity')::int

-- name: add_symbols
-- New symbols; a name that somebody else had before begins where that ended.
WITH numbered AS (
    SELECT u.name, u.n FROM unnest(%(names)s::text[]) WITH ORDINALITY AS u(name, n)
),
made AS (
    INSERT INTO symbols (as_of) SELECT %(as_of)s FROM numbered ORDER BY n RETURNING symbol_id
),
paired AS (
    SELECT n.name, m.symbol_id
    FROM numbered n
    JOIN (SELECT symbol_id, row_number() OVER (ORDER BY symbol_id) AS n FROM made) m ON m.n = n.n
)
INSERT INTO symbol_names (symbol_id, name, valid_from, valid_to, as_of)
SELECT p.symbol_id, p.name,
       coalesce((SELECT max(o.valid_to) FROM gapless_names(ARRAY[p.name], 'infinity') o), '-infinity'),
       'infinity', %(as_of)s
FROM paired p
RETURNING name, symbol_id

-- name: add_version
INSERT INTO universe_versions (version, as_of, origin, note, checksum)
VALUES (%(version)s, %(as_of)s, %(origin)s, %(note)s, %(checksum)s)

-- name: add_members
INSERT INTO symbol_universe (symbol_id, version, tier, calendar, exchange, active, as_of)
SELECT u.symbol_id, %(version)s, u.tier, u.calendar, u.exchange, u.active, %(as_of)s
FROM unnest(%(ids)s::int4[], %(tiers)s::text[], %(calendars)s::text[], %(exchanges)s::text[], %(active)s::bool[])
    AS u(symbol_id, tier, calendar, exchange, active)

-- name: is_renamed
-- The same rename was done before.
SELECT 1
FROM gapless_names(ARRAY[%(old)s], 'infinity') o
JOIN gapless_names(ARRAY[%(new)s], 'infinity') n ON n.symbol_id = o.symbol_id
WHERE o.valid_to = %(since)s AND n.valid_from = %(since)s

-- name: holder_before
SELECT n.symbol_id FROM gapless_names(ARRAY[%(old)s], 'infinity') n
WHERE n.valid_from < %(since)s AND n.valid_to > %(since)s

-- name: taken_after
SELECT n.symbol_id FROM gapless_names(ARRAY[%(new)s], 'infinity') n WHERE n.valid_to > %(since)s

-- name: rename
-- The old name ends where the new one begins.
INSERT INTO symbol_names (symbol_id, name, valid_from, valid_to, as_of)
SELECT n.symbol_id, n.name, n.valid_from, %(since)s, %(as_of)s
FROM gapless_names(ARRAY[%(old)s], 'infinity') n
WHERE n.symbol_id = %(symbol_id)s AND n.valid_to > %(since)s
UNION ALL
SELECT %(symbol_id)s, %(new)s, %(since)s, 'infinity', %(as_of)s
