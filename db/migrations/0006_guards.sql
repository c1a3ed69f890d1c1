-- Append-only by force, and the two doors that are left: retention and the end of stuck writes.
-- locks: ACCESS EXCLUSIVE on each guarded table for the instant of CREATE TRIGGER.

DO $$
DECLARE
    guarded text;
BEGIN
    FOREACH guarded IN ARRAY ARRAY[
        'candles_intraday', 'candles_eod', 'quotes_l1', 'fetch_evidence', 'confirmed_empty', 'provider_payloads',
        'quarantine', 'source_rank', 'symbols', 'symbol_names', 'universe_versions', 'symbol_universe',
        'calendar_versions', 'calendar_sessions', 'calendar_overrides', 'provider_switches', 'corporate_actions',
        'retention_cuts', 'replay_segments']
    LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %I '
                       'FOR EACH ROW EXECUTE FUNCTION gapless_append_only()', guarded);
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only()', guarded);
    END LOOP;
END
$$;

CREATE FUNCTION gapless_is_hypertable(relation text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_ boolean := false;
BEGIN
    IF to_regclass('timescaledb_information.hypertables') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT 1 FROM timescaledb_information.hypertables h '
                'WHERE h.hypertable_schema = ''public'' AND h.hypertable_name = $1)' INTO found_ USING relation;
    END IF;
    RETURN found_;
END
$$;

-- Retention: the only delete. Removes at most max_rows (chunks on a hypertable) of what lies wholly before now - keep
-- and says how many.
-- Kinds: candles and quotes by ts, payloads by asked_at, inbox and slots (finished work) by age.
CREATE FUNCTION gapless_expire(kind text, keep interval, max_rows integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    least_keep interval := CASE gapless_expire.kind
        WHEN 'candles' THEN interval '30 days' WHEN 'quotes' THEN interval '1 day'
        WHEN 'payloads' THEN interval '1 hour' WHEN 'work' THEN interval '1 day' END;
    cut        timestamptz := public.gapless_now() - gapless_expire.keep;
    removed    bigint := 0;
    part       bigint;
    target     text;
    column_    text;
BEGIN
    IF gapless_expire.keep < least_keep OR gapless_expire.keep IS NULL THEN
        RAISE EXCEPTION 'keep is %; % may not go before %', gapless_expire.keep, gapless_expire.kind, least_keep
            USING ERRCODE = 'ZG005';
    END IF;
    IF gapless_expire.kind <> 'work' THEN
        -- One row a day is enough to know what is gone.
        INSERT INTO public.retention_cuts (kind, before_ts, as_of)
        VALUES (gapless_expire.kind, date_trunc('day', cut, 'UTC'), public.gapless_now()) ON CONFLICT DO NOTHING;
    END IF;
    -- Not as a clause of the function: that takes a superuser.
    PERFORM set_config('gapless.expiring', 'on', true);
    FOREACH target IN ARRAY CASE gapless_expire.kind
        WHEN 'candles' THEN ARRAY['candles_intraday', 'candles_eod'] WHEN 'quotes' THEN ARRAY['quotes_l1']
        WHEN 'payloads' THEN ARRAY['provider_payloads', 'quarantine']
        ELSE ARRAY['rlc_inbox', 'sweep_slots', 'backfill_jobs'] END
    LOOP
        IF public.gapless_is_hypertable(target) THEN
            -- Whole chunks go at once; what shares a chunk with younger rows stays until these are old enough.
            EXECUTE 'SELECT count(*) FROM public.drop_chunks($1::regclass, older_than => $2)'
            INTO part USING 'public.' || target, cut;
            removed := removed + part;
            CONTINUE;
        END IF;
        column_ := CASE target WHEN 'provider_payloads' THEN 'asked_at' WHEN 'quarantine' THEN 'asked_at'
            WHEN 'rlc_inbox' THEN 'done_at' WHEN 'sweep_slots' THEN 'pushed_at' WHEN 'backfill_jobs' THEN 'finished_at'
            ELSE 'ts' END;
        EXECUTE format(
            'DELETE FROM public.%I WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM public.%I t WHERE t.%I < $1 LIMIT $2))',
            target, target, column_)
        USING cut, gapless_expire.max_rows - removed;
        GET DIAGNOSTICS part = ROW_COUNT;
        removed := removed + part;
    END LOOP;
    PERFORM set_config('gapless.expiring', 'off', true);
    RETURN removed;
END
$$;

COMMENT ON FUNCTION gapless_expire(text, interval, integer) IS
    'The only delete. kind: candles, quotes, payloads or work; keep: how much market time stays.';

-- Ends write transactions that have been open too long: they hold every reader's horizon.
CREATE FUNCTION gapless_end_stuck_writes(older_than_s double precision DEFAULT 10) RETURNS SETOF integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    stuck integer;
BEGIN
    -- Chosen first, ended after: in one WHERE the planner may end a process before it looks at the rest.
    FOR stuck IN
        SELECT a.pid
        FROM pg_stat_activity a
        WHERE a.datname = current_database()
          AND a.pid <> pg_backend_pid()
          AND a.xact_start < clock_timestamp() - make_interval(secs => greatest(older_than_s, 1))
          AND EXISTS (SELECT 1 FROM pg_locks l
                      WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 2
                        AND l.classid::bigint = public.gapless_horizon_class())
    LOOP
        IF pg_terminate_backend(stuck) THEN
            RETURN NEXT stuck;
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION gapless_end_stuck_writes(double precision) IS
    'Terminates writers whose transaction is older than that many real seconds (at least 1); returns their pids.';
