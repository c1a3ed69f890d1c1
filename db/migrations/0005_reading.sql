-- The public contract: views and as-of functions, text columns, one row a bar.
-- locks: creates new objects only; waits for nobody.

CREATE TYPE candle_row AS (
    symbol      text,
    "interval"  text,
    ts          timestamptz,
    open        double precision,
    high        double precision,
    low         double precision,
    close       double precision,
    volume      double precision,
    vwap        double precision,
    trade_count bigint,
    provider    text,
    status      text,
    as_of       timestamptz
);

CREATE FUNCTION gapless_status(status smallint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE status WHEN 0 THEN 'partial' WHEN 1 THEN 'final' WHEN 2 THEN 'revised' ELSE 'withdrawn' END
$$;

-- The functions below are STABLE single SELECTs, so that the planner inlines them into views and readers and
-- pushes symbol and ts down to the key. All sorts descend: that is the primary key read backwards.

-- Newest revision of every source, of one symbol's intraday bars.
CREATE FUNCTION gapless_newest_intraday(
    symbol_id integer, interval_s integer, start_ts timestamptz, end_ts timestamptz, known_by timestamptz)
RETURNS SETOF candles_intraday
LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (c.ts, c.provider_id) c.*
    FROM candles_intraday c
    WHERE c.symbol_id = gapless_newest_intraday.symbol_id
      AND c.interval_s = gapless_newest_intraday.interval_s
      AND c.ts >= gapless_newest_intraday.start_ts
      AND c.ts < gapless_newest_intraday.end_ts
      AND c.as_of <= gapless_newest_intraday.known_by
    ORDER BY c.ts DESC, c.provider_id DESC, c.as_of DESC
$$;

-- Newest revision of every source, of one symbol's daily bars. A session opens within a day of its date, UTC.
CREATE FUNCTION gapless_newest_eod(
    symbol_id integer, start_ts timestamptz, end_ts timestamptz, known_by timestamptz)
RETURNS SETOF candles_eod
LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (c.session, c.provider_id) c.*
    FROM candles_eod c
    WHERE c.symbol_id = gapless_newest_eod.symbol_id
      AND c.session >= (gapless_newest_eod.start_ts AT TIME ZONE 'UTC')::date - 1
      AND c.session <= (gapless_newest_eod.end_ts AT TIME ZONE 'UTC')::date + 1
      AND c.as_of <= gapless_newest_eod.known_by
    ORDER BY c.session DESC, c.provider_id DESC, c.as_of DESC
$$;

-- One-minute bars of every source as known at an instant, tombstones included.
CREATE FUNCTION gapless_all_1m(
    symbols text[], start_ts timestamptz, end_ts timestamptz, known_by timestamptz, providers text[])
RETURNS SETOF candle_row
LANGUAGE sql STABLE AS $$
    SELECT n.name, '1m'::text, v.ts, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trade_count::bigint,
           s.name, gapless_status(v.status), v.as_of
    FROM gapless_names(gapless_all_1m.symbols, gapless_all_1m.known_by) n
    CROSS JOIN LATERAL gapless_newest_intraday(
        n.symbol_id, 60, n.valid_from, n.valid_to, gapless_all_1m.known_by) v
    JOIN sources s ON s.provider_id = v.provider_id
    WHERE v.ts >= gapless_all_1m.start_ts AND v.ts < gapless_all_1m.end_ts
      AND (gapless_all_1m.providers IS NULL OR s.name = ANY (gapless_all_1m.providers))
$$;

-- One-minute bars of the winning source as known at an instant; a tombstone yields to the next source.
CREATE FUNCTION gapless_best_1m(
    symbols text[], start_ts timestamptz, end_ts timestamptz, known_by timestamptz, providers text[])
RETURNS SETOF candle_row
LANGUAGE sql STABLE AS $$
    SELECT n.name, '1m'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           w.provider, gapless_status(w.status), w.as_of
    FROM gapless_names(gapless_best_1m.symbols, gapless_best_1m.known_by) n
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.ts) v.*, r.provider
        FROM gapless_newest_intraday(n.symbol_id, 60, n.valid_from, n.valid_to, gapless_best_1m.known_by) v
        JOIN gapless_ranks('bars_1m', gapless_best_1m.known_by) r ON r.provider_id = v.provider_id
        WHERE v.status <> 3
          AND (gapless_best_1m.providers IS NULL OR r.provider = ANY (gapless_best_1m.providers))
        ORDER BY v.ts DESC, r.place, r.provider
    ) w
    WHERE w.ts >= gapless_best_1m.start_ts AND w.ts < gapless_best_1m.end_ts
$$;

-- Daily bars of every source as known at an instant, tombstones included.
CREATE FUNCTION gapless_all_1d(
    symbols text[], start_ts timestamptz, end_ts timestamptz, known_by timestamptz, providers text[])
RETURNS SETOF candle_row
LANGUAGE sql STABLE AS $$
    SELECT n.name, '1d'::text, v.ts, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trade_count::bigint,
           s.name, gapless_status(v.status), v.as_of
    FROM gapless_names(gapless_all_1d.symbols, gapless_all_1d.known_by) n
    CROSS JOIN LATERAL gapless_newest_eod(
        n.symbol_id, greatest(gapless_all_1d.start_ts, n.valid_from), least(gapless_all_1d.end_ts, n.valid_to),
        gapless_all_1d.known_by) v
    JOIN sources s ON s.provider_id = v.provider_id
    WHERE v.ts >= gapless_all_1d.start_ts AND v.ts < gapless_all_1d.end_ts
      AND v.ts >= n.valid_from AND v.ts < n.valid_to
      AND (gapless_all_1d.providers IS NULL OR s.name = ANY (gapless_all_1d.providers))
$$;

-- Daily bars of the winning source as known at an instant; a tombstone yields to the next source.
CREATE FUNCTION gapless_best_1d(
    symbols text[], start_ts timestamptz, end_ts timestamptz, known_by timestamptz, providers text[])
RETURNS SETOF candle_row
LANGUAGE sql STABLE AS $$
    SELECT n.name, '1d'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           w.provider, gapless_status(w.status), w.as_of
    FROM gapless_names(gapless_best_1d.symbols, gapless_best_1d.known_by) n
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.session) v.*, r.provider
        FROM gapless_newest_eod(
            n.symbol_id, greatest(gapless_best_1d.start_ts, n.valid_from), least(gapless_best_1d.end_ts, n.valid_to),
            gapless_best_1d.known_by) v
        JOIN gapless_ranks('bars_eod', gapless_best_1d.known_by) r ON r.provider_id = v.provider_id
        WHERE v.status <> 3
          AND (gapless_best_1d.providers IS NULL OR r.provider = ANY (gapless_best_1d.providers))
        ORDER BY v.session DESC, r.place, r.provider
    ) w
    WHERE w.ts >= gapless_best_1d.start_ts AND w.ts < gapless_best_1d.end_ts
      AND w.ts >= n.valid_from AND w.ts < n.valid_to
$$;

-- The first whole step at or after an instant; infinity stays.
CREATE FUNCTION gapless_step_from(instant timestamptz, step interval) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN isfinite(instant)
        THEN date_bin(step, instant + step - interval '1 microsecond', 'epoch') ELSE instant END
$$;

CREATE VIEW candles AS
SELECT * FROM gapless_best_1m(NULL, '-infinity', 'infinity', 'infinity', NULL)
UNION ALL
SELECT * FROM gapless_best_1d(NULL, '-infinity', 'infinity', 'infinity', NULL);

COMMENT ON VIEW candles IS
    'Newest revision of the winning source, one row a bar; intervals 1m and 1d. 5m, 15m and 1h come from '
    'candles_as_of(). For reads that never change use candles_as_of().';

CREATE VIEW candles_all AS
SELECT * FROM gapless_all_1m(NULL, '-infinity', 'infinity', 'infinity', NULL)
UNION ALL
SELECT * FROM gapless_all_1d(NULL, '-infinity', 'infinity', 'infinity', NULL);

COMMENT ON VIEW candles_all IS
    'Newest revision of every source; intervals 1m and 1d. A withdrawn bar is a row with status withdrawn and no prices.';

-- The instant to read at: the horizon for NULL, else the asked one, once no open write can still change it. An instant
-- that was safe a moment ago may lie behind the lock of a write that began since; writes last milliseconds, so it
-- is waited for.
CREATE FUNCTION gapless_horizon(wanted timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    horizon  timestamptz := safe_as_of();
    one_view boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
    patience timestamptz := clock_timestamp() + make_interval(
        secs => coalesce(nullif(current_setting('gapless.horizon_wait_s', true), ''), '15')::float8);
BEGIN
    IF wanted IS NULL THEN
        IF one_view THEN
            RAISE EXCEPTION 'as_of is NULL in a % transaction, whose snapshot is older than the horizon',
                    current_setting('transaction_isolation')
                USING ERRCODE = 'ZG001', HINT = 'SELECT safe_as_of() before BEGIN and pass it as as_of.';
        END IF;
        RETURN horizon;
    END IF;
    -- What has not happened yet is refused at once; so is waiting with a snapshot that will not see what is waited for.
    WHILE wanted > horizon AND wanted < gapless_now() AND NOT one_view AND clock_timestamp() < patience LOOP
        PERFORM pg_sleep(0.001);
        horizon := safe_as_of();
    END LOOP;
    IF wanted > horizon THEN
        RAISE EXCEPTION 'as_of % lies beyond the horizon %: open writes can still change that answer', wanted, horizon
            USING ERRCODE = 'ZG001', HINT = 'Read at safe_as_of(), or pass NULL for the horizon.';
    END IF;
    RETURN wanted;
END
$$;

-- Bars of the winning source, as known at as_of. VOLATILE, so that each statement inside has its own snapshot:
-- the horizon's first, the read's after it. In one statement the read could miss a write below its horizon.
CREATE FUNCTION candles_as_of(
    symbols text[], "interval" text, start_ts timestamptz, end_ts timestamptz, as_of timestamptz,
    providers text[] DEFAULT NULL)
RETURNS SETOF candle_row
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(candles_as_of.as_of);
    from_ts  timestamptz := coalesce(candles_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(candles_as_of.end_ts, 'infinity');
    step     interval := gapless_step(candles_as_of."interval");
BEGIN
    IF candles_as_of."interval" = '1m' THEN
        RETURN QUERY SELECT b.* FROM gapless_best_1m(
            candles_as_of.symbols, from_ts, to_ts, known_by, candles_as_of.providers) b;
    ELSIF candles_as_of."interval" = '1d' THEN
        RETURN QUERY SELECT b.* FROM gapless_best_1d(
            candles_as_of.symbols, from_ts, to_ts, known_by, candles_as_of.providers) b;
    ELSE
        RETURN QUERY
        SELECT b.symbol, candles_as_of."interval", date_bin(step, b.ts, 'epoch'),
               (array_agg(b.open ORDER BY b.ts))[1], max(b.high), min(b.low), (array_agg(b.close ORDER BY b.ts DESC))[1],
               CASE WHEN count(b.volume) = count(*) THEN sum(b.volume) END,
               CASE WHEN count(b.vwap) = count(*) THEN sum(b.vwap * b.volume) / nullif(sum(b.volume), 0) END,
               CASE WHEN count(b.trade_count) = count(*) THEN sum(b.trade_count)::bigint END,
               string_agg(DISTINCT b.provider, '+' ORDER BY b.provider),
               CASE WHEN bool_or(b.status = 'partial') OR date_bin(step, b.ts, 'epoch') + step > known_by THEN 'partial'
                    WHEN bool_or(b.status = 'revised') THEN 'revised'
                    ELSE 'final' END,
               max(b.as_of)
        FROM gapless_best_1m(
            candles_as_of.symbols, gapless_step_from(from_ts, step), gapless_step_from(to_ts, step), known_by,
            candles_as_of.providers) b
        GROUP BY b.symbol, date_bin(step, b.ts, 'epoch');
    END IF;
END
$$;

COMMENT ON FUNCTION candles_as_of(text[], text, timestamptz, timestamptz, timestamptz, text[]) IS
    'Bars with start_ts <= ts < end_ts of the winning source as known at as_of (NULL: the horizon). symbols NULL: all. '
    '5m, 15m and 1h are made from the one-minute bars then known. Not ordered.';

-- Bars of every source, as known at as_of; withdrawn ones with their status and no prices.
CREATE FUNCTION candles_all_as_of(
    symbols text[], "interval" text, start_ts timestamptz, end_ts timestamptz, as_of timestamptz,
    providers text[] DEFAULT NULL)
RETURNS SETOF candle_row
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(candles_all_as_of.as_of);
    from_ts  timestamptz := coalesce(candles_all_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(candles_all_as_of.end_ts, 'infinity');
    step     interval := gapless_step(candles_all_as_of."interval");
BEGIN
    IF candles_all_as_of."interval" = '1m' THEN
        RETURN QUERY SELECT b.* FROM gapless_all_1m(
            candles_all_as_of.symbols, from_ts, to_ts, known_by, candles_all_as_of.providers) b;
    ELSIF candles_all_as_of."interval" = '1d' THEN
        RETURN QUERY SELECT b.* FROM gapless_all_1d(
            candles_all_as_of.symbols, from_ts, to_ts, known_by, candles_all_as_of.providers) b;
    ELSE
        RETURN QUERY
        SELECT b.symbol, candles_all_as_of."interval", date_bin(step, b.ts, 'epoch'),
               (array_agg(b.open ORDER BY b.ts))[1], max(b.high), min(b.low), (array_agg(b.close ORDER BY b.ts DESC))[1],
               CASE WHEN count(b.volume) = count(*) THEN sum(b.volume) END,
               CASE WHEN count(b.vwap) = count(*) THEN sum(b.vwap * b.volume) / nullif(sum(b.volume), 0) END,
               CASE WHEN count(b.trade_count) = count(*) THEN sum(b.trade_count)::bigint END,
               b.provider,
               CASE WHEN bool_or(b.status = 'partial') OR date_bin(step, b.ts, 'epoch') + step > known_by THEN 'partial'
                    WHEN bool_or(b.status = 'revised') THEN 'revised'
                    ELSE 'final' END,
               max(b.as_of)
        FROM gapless_all_1m(
            candles_all_as_of.symbols, gapless_step_from(from_ts, step), gapless_step_from(to_ts, step), known_by,
            candles_all_as_of.providers) b
        WHERE b.status <> 'withdrawn'
        GROUP BY b.symbol, b.provider, date_bin(step, b.ts, 'epoch');
    END IF;
END
$$;

COMMENT ON FUNCTION candles_all_as_of(text[], text, timestamptz, timestamptz, timestamptz, text[]) IS
    'As candles_as_of(), the bars of every source.';

-- Length of an interval by its public name.
CREATE FUNCTION gapless_step("interval" text) RETURNS interval
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    CASE gapless_step."interval"
        WHEN '1m' THEN RETURN interval '1 minute';
        WHEN '5m' THEN RETURN interval '5 minutes';
        WHEN '15m' THEN RETURN interval '15 minutes';
        WHEN '1h' THEN RETURN interval '1 hour';
        WHEN '1d' THEN RETURN interval '1 day';
        ELSE RAISE EXCEPTION 'interval % is unknown; expected 1m, 5m, 15m, 1h or 1d', quote_nullable("interval")
            USING ERRCODE = 'ZG005';
    END CASE;
END
$$;

CREATE VIEW quotes AS
SELECT n.name AS symbol, q.ts, s.name AS provider, q.bid, q.ask, q.bid_size, q.ask_size, q.last, q.last_size, q.as_of
FROM gapless_names(NULL, 'infinity') n
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (c.ts, c.provider_id) c.*
    FROM quotes_l1 c
    WHERE c.symbol_id = n.symbol_id AND c.ts >= n.valid_from AND c.ts < n.valid_to
    ORDER BY c.ts DESC, c.provider_id DESC, c.as_of DESC
) q
JOIN sources s ON s.provider_id = q.provider_id;

COMMENT ON VIEW quotes IS 'Newest version of every quote of every source.';

CREATE FUNCTION gapless_interval(interval_s integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE interval_s WHEN 60 THEN '1m' WHEN 300 THEN '5m' WHEN 900 THEN '15m' WHEN 3600 THEN '1h' ELSE '1d' END
$$;

CREATE VIEW coverage AS
SELECT n.name AS symbol, gapless_interval(w.interval_s) AS "interval", w.start_ts, w.end_ts, w.state, w.provider,
       w.reason, w.as_of
FROM gapless_names(NULL, 'infinity') n
CROSS JOIN LATERAL (
    SELECT c.interval_s, lower(r.part) AS start_ts, upper(r.part) AS end_ts, r.state, s.name AS provider,
           NULL::text AS reason, c.last_as_of AS as_of
    FROM ingestion_cursor c
    JOIN sources s ON s.provider_id = c.provider_id
    CROSS JOIN LATERAL (
        SELECT unnest(c.covered) AS part, 'covered' AS state
        UNION ALL SELECT unnest(c.unsettled), 'unsettled'
        UNION ALL SELECT unnest(c.lacked), 'lacked'
    ) r
    WHERE c.symbol_id = n.symbol_id
    UNION ALL
    SELECT e.interval_s, e.start_ts, e.end_ts, e.outcome, s.name, concat_ws(': ', nullif(e.code, ''), nullif(e.detail, '')),
           e.as_of
    FROM fetch_evidence e
    JOIN sources s ON s.provider_id = e.provider_id
    WHERE e.symbol_id = n.symbol_id AND e.outcome <> 'lacked'
    UNION ALL
    SELECT e.interval_s, e.start_ts, e.end_ts, 'confirmed_empty', array_to_string(e.providers, '+'), e.basis, e.as_of
    FROM confirmed_empty e
    WHERE e.symbol_id = n.symbol_id
    UNION ALL
    SELECT 60, lower(h.part), upper(h.part), 'halted', NULL, o.reason, o.as_of
    FROM calendar_overrides_now o
    CROSS JOIN LATERAL unnest(o.hours) AS h(part)
    WHERE o.kind = 'halt'
      AND (o.symbol_id = n.symbol_id
           OR o.calendar = (SELECT u.calendar FROM symbol_universe u WHERE u.symbol_id = n.symbol_id
                            ORDER BY u.version DESC LIMIT 1))
    UNION ALL
    SELECT j.interval_s, j.start_ts, j.end_ts, CASE j.state WHEN 'failed' THEN 'parked' ELSE 'gap' END, j.provider,
           concat_ws(': ', j.state, j.reason), coalesce(j.finished_at, j.created_at)
    FROM backfill_jobs j
    WHERE j.symbol_id = n.symbol_id AND j.state IN ('pending', 'running', 'paused', 'failed')
) w;

COMMENT ON VIEW coverage IS
    'What is known of each stretch of a series. state: covered (asked, answered, settled), unsettled, lacked '
    '(covered without a bar, not confirmed), confirmed_empty, halted, failed, refused, not_entitled (a source''s '
    'answer), gap (a backfill is on its way), parked (a backfill was given up).';
