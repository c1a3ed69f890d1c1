-- name: newest
SELECT version, content, extract(epoch FROM published_at)::float8
FROM settings_versions
ORDER BY version DESC
LIMIT 1

-- name: add
INSERT INTO settings_versions (content, who, as_of)
VALUES (%(content)s, %(who)s, %(as_of)s)
RETURNING version, content, extract(epoch FROM published_at)::float8

-- name: tell
-- Which version a process has taken on, for whoever listens.
SELECT pg_notify('gapless_settings', %(word)s)

-- name: listen
LISTEN gapless_settings

-- name: processes
-- Process kinds that are connected to this database and take on settings.
SELECT DISTINCT a.application_name
FROM pg_stat_activity a
WHERE a.datname = current_database()
  AND a.application_name ~ '^gapless-(collect|backfill|intake|scheduler|exporter)'
