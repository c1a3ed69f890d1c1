-- name: find
SELECT s.provider_id FROM sources s WHERE s.name = %(name)s

-- name: add
INSERT INTO sources (name, adjustment) VALUES (%(name)s, %(adjustment)s) ON CONFLICT (name) DO NOTHING

-- name: names
SELECT s.provider_id, s.name FROM sources s
