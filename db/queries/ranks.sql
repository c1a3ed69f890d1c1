-- name: current
SELECT r.rank, r.provider
FROM source_rank r
WHERE r.capability = %(capability)s
  AND r.as_of = (SELECT max(x.as_of) FROM source_rank x WHERE x.capability = %(capability)s)
ORDER BY r.position

-- name: add
INSERT INTO source_rank (capability, as_of, rank, position, provider)
SELECT %(capability)s, %(as_of)s, u.band, u.place - 1, u.name
FROM unnest(%(bands)s::int2[], %(names)s::text[]) WITH ORDINALITY AS u(band, name, place)
