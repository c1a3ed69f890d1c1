-- name: lock
-- One runner at a time; released when the connection closes.
SELECT pg_advisory_lock(hashtextextended('gapless migrate', 0))

-- name: lock_timeout
SELECT set_config('lock_timeout', %(timeout)s, false)

-- name: create_ledger
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text             PRIMARY KEY,
    checksum   text             NOT NULL,
    state      text             NOT NULL CHECK (state IN ('applied', 'skipped')),
    applied_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    seconds    double precision NOT NULL
)

-- name: ledger
SELECT m.name, m.checksum, m.state FROM schema_migrations m

-- name: record
INSERT INTO schema_migrations AS m (name, checksum, state, seconds)
VALUES (%(name)s, %(checksum)s, %(state)s, %(seconds)s)
ON CONFLICT (name) DO UPDATE
SET checksum = excluded.checksum, state = excluded.state, seconds = excluded.seconds, applied_at = clock_timestamp()

-- name: capabilities
-- The loader defines timescaledb.disable_load only when it is preloaded; CREATE EXTENSION without that is fatal.
SELECT
    current_setting('timescaledb.disable_load', true) IS NOT NULL
        AND EXISTS (SELECT 1 FROM pg_available_extensions e WHERE e.name = 'timescaledb'),
    EXISTS (SELECT 1 FROM pg_extension e WHERE e.extname = 'timescaledb')
        AND coalesce(current_setting('timescaledb.license', true), '') = 'timescale',
    (SELECT r.rolsuper OR r.rolcreaterole FROM pg_roles r WHERE r.rolname = current_user)
        OR 2 = (SELECT count(*) FROM pg_roles r
                WHERE r.rolname IN ('gapless_writer', 'gapless_reader') AND pg_has_role(current_user, r.oid, 'MEMBER'))

-- name: grant_roles
-- The function exists once the roles do.
DO $$
BEGIN
    IF to_regprocedure('gapless_grant_roles()') IS NOT NULL THEN
        PERFORM gapless_grant_roles();
    END IF;
END
$$

-- name: has_clock
SELECT to_regclass('market_clock') IS NOT NULL
