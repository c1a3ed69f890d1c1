-- The roles that processes and readers run as. Skipped, and tried again at every run, while they are missing and
-- the migrating user may not create them.
-- locks: none on tables.
-- migrate: requires=roles

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['gapless_writer', 'gapless_reader'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database of this server was migrated at the same moment
            END;
        END IF;
        BEGIN
            -- From PostgreSQL 16 on, who creates a role may grant it but not yet take it.
            EXECUTE format('GRANT %I TO %I', wanted, current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'role % is managed by somebody else', wanted;
        END;
    END LOOP;
END
$$;

-- Grants on everything that exists; the runner calls it after every run, so later tables need no grants of their own:
-- the writer may SELECT, INSERT and UPDATE unless the table has the append-only guard, then SELECT and INSERT.
CREATE FUNCTION gapless_grant_roles() RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    relation record;
BEGIN
    FOR relation IN
        SELECT c.oid::regclass::text AS name, c.relkind,
               EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'append_only') AS append_only
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
          AND pg_has_role(current_user, c.relowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, gapless_reader, gapless_writer', relation.name);
        EXECUTE format('GRANT SELECT ON %s TO gapless_reader, gapless_writer', relation.name);
        IF relation.relkind <> 'v' AND relation.name NOT IN ('schema_migrations', 'retention_cuts') THEN
            EXECUTE format('GRANT INSERT%s ON %s TO gapless_writer',
                           CASE WHEN relation.append_only THEN '' ELSE ', UPDATE' END, relation.name);
        END IF;
    END LOOP;
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO gapless_writer', current_database());
    REVOKE ALL ON FUNCTION gapless_expire(text, interval, integer) FROM PUBLIC;
    REVOKE ALL ON FUNCTION gapless_end_stuck_writes(double precision) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION gapless_expire(text, interval, integer) TO gapless_writer;
    GRANT EXECUTE ON FUNCTION gapless_end_stuck_writes(double precision) TO gapless_writer;
END
$$;
