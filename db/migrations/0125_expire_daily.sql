-- Retention knows that daily bars are partitioned by date.
-- locks: none.

CREATE OR REPLACE FUNCTION gapless_expire(kind text, keep interval, max_rows integer DEFAULT 10000) RETURNS bigint
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
            -- The argument's type has to be the partitioning column's.
            EXECUTE format('SELECT count(*) FROM public.drop_chunks($1::regclass, older_than => $2::%s)',
                           CASE target WHEN 'candles_eod' THEN 'date' ELSE 'timestamptz' END)
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
