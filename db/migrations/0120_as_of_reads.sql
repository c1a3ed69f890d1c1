-- Quotes and coverage as known at an instant, in the manner of candles_as_of().
-- locks: creates new objects only; waits for nobody.

CREATE TYPE quote_row AS (
    symbol    text,
    ts        timestamptz,
    provider  text,
    bid       double precision,
    ask       double precision,
    bid_size  double precision,
    ask_size  double precision,
    last      double precision,
    last_size double precision,
    as_of     timestamptz
);

CREATE FUNCTION quotes_as_of(
    symbols text[], start_ts timestamptz, end_ts timestamptz, as_of timestamptz, providers text[] DEFAULT NULL)
RETURNS SETOF quote_row
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(quotes_as_of.as_of);
    from_ts  timestamptz := coalesce(quotes_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(quotes_as_of.end_ts, 'infinity');
BEGIN
    RETURN QUERY
    SELECT n.name, q.ts, s.name, q.bid, q.ask, q.bid_size, q.ask_size, q.last, q.last_size, q.as_of
    FROM gapless_names(quotes_as_of.symbols, known_by) n
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (c.ts, c.provider_id) c.*
        FROM quotes_l1 c
        WHERE c.symbol_id = n.symbol_id
          AND c.ts >= greatest(n.valid_from, from_ts) AND c.ts < least(n.valid_to, to_ts)
          AND c.as_of <= known_by
        ORDER BY c.ts DESC, c.provider_id DESC, c.as_of DESC
    ) q
    JOIN sources s ON s.provider_id = q.provider_id
    WHERE quotes_as_of.providers IS NULL OR s.name = ANY (quotes_as_of.providers);
END
$$;

COMMENT ON FUNCTION quotes_as_of(text[], timestamptz, timestamptz, timestamptz, text[]) IS
    'Quotes with start_ts <= ts < end_ts of every source as known at as_of (NULL: the horizon). symbols NULL: all. Not ordered.';

CREATE TYPE coverage_row AS (
    symbol     text,
    "interval" text,
    start_ts   timestamptz,
    end_ts     timestamptz,
    state      text,
    provider   text,
    reason     text,
    as_of      timestamptz
);

-- The view coverage shows cursors and backfill rows, which change in place. What was known at an instant is
-- told by what only grows: bars, evidence, confirmations and overrides.
CREATE FUNCTION coverage_as_of(
    symbols text[], "interval" text, start_ts timestamptz, end_ts timestamptz, as_of timestamptz,
    providers text[] DEFAULT NULL)
RETURNS SETOF coverage_row
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(coverage_as_of.as_of);
    from_ts  timestamptz := coalesce(coverage_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(coverage_as_of.end_ts, 'infinity');
    step     interval := gapless_step(coverage_as_of."interval");
    step_s   integer := extract(epoch FROM step);
BEGIN
    IF coverage_as_of."interval" NOT IN ('1m', '1d') THEN
        RAISE EXCEPTION 'interval % is not collected but made from 1m', coverage_as_of."interval"
            USING ERRCODE = 'ZG005', HINT = 'Ask for the coverage of 1m or 1d.';
    END IF;
    RETURN QUERY
    WITH named AS MATERIALIZED (
        SELECT n.symbol_id, n.name, greatest(n.valid_from, from_ts) AS low, least(n.valid_to, to_ts) AS high
        FROM gapless_names(coverage_as_of.symbols, known_by) n
        WHERE n.valid_to > from_ts AND n.valid_from < to_ts
    ),
    known_sources AS MATERIALIZED (
        SELECT s.provider_id, s.name FROM sources s
        WHERE coverage_as_of.providers IS NULL OR s.name = ANY (coverage_as_of.providers)
    ),
    bars AS MATERIALIZED (
        SELECT b.symbol_id, b.name, b.provider_id, b.ts, b.as_of,
               CASE b.status WHEN 0 THEN 'partial' WHEN 3 THEN 'withdrawn' ELSE 'present' END AS state
        FROM (
            SELECT n.symbol_id, n.name, v.provider_id, v.ts, v.as_of, v.status
            FROM named n
            CROSS JOIN LATERAL gapless_newest_intraday(n.symbol_id, step_s, n.low, n.high, known_by) v
            WHERE step_s = 60
            UNION ALL
            SELECT n.symbol_id, n.name, v.provider_id, v.ts, v.as_of, v.status
            FROM named n
            CROSS JOIN LATERAL gapless_newest_eod(n.symbol_id, n.low, n.high, known_by) v
            WHERE step_s = 86400 AND v.ts >= n.low AND v.ts < n.high
        ) b
    ),
    runs AS (
        -- Bars that follow each other by one step make one stretch.
        SELECT r.name, r.provider_id, r.state, min(r.ts) AS start_ts, max(r.ts) + step AS end_ts, max(r.as_of) AS as_of
        FROM (
            SELECT f.*, sum(f.fresh) OVER (PARTITION BY f.symbol_id, f.name, f.provider_id, f.state ORDER BY f.ts) AS run
            FROM (
                SELECT b.*, (b.ts IS DISTINCT FROM step + lag(b.ts) OVER (
                    PARTITION BY b.symbol_id, b.name, b.provider_id, b.state ORDER BY b.ts))::int AS fresh
                FROM bars b
            ) f
        ) r
        GROUP BY r.symbol_id, r.name, r.provider_id, r.state, r.run
    ),
    heard AS (
        SELECT n.symbol_id, n.name, n.low, n.high, e.*
        FROM named n
        CROSS JOIN LATERAL (
            SELECT e.provider_id, e.start_ts, e.end_ts, e.outcome, e.settled, e.lacking, e.code, e.detail, e.as_of
            FROM fetch_evidence e
            WHERE e.symbol_id = n.symbol_id AND e.interval_s = step_s
              AND e.end_ts > n.low AND e.start_ts < n.high AND e.as_of <= known_by
        ) e
    ),
    lacked AS (
        SELECT h.name, h.provider_id, max(h.as_of) AS as_of,
               coalesce(range_agg(h.lacking) FILTER (WHERE h.settled), '{}')
                   * tstzmultirange(tstzrange(h.low, h.high)) - coalesce(p.span, '{}') AS settled,
               coalesce(range_agg(h.lacking) FILTER (WHERE NOT h.settled), '{}')
                   * tstzmultirange(tstzrange(h.low, h.high)) - coalesce(p.span, '{}')
                   - coalesce(range_agg(h.lacking) FILTER (WHERE h.settled), '{}') AS unsettled
        FROM heard h
        LEFT JOIN (
            SELECT b.symbol_id, b.name, b.provider_id, range_agg(tstzrange(b.ts, b.ts + step)) AS span
            FROM bars b
            GROUP BY b.symbol_id, b.name, b.provider_id
        ) p ON p.symbol_id = h.symbol_id AND p.name = h.name AND p.provider_id = h.provider_id
        WHERE h.outcome = 'lacked'
        GROUP BY h.symbol_id, h.name, h.provider_id, h.low, h.high, p.span
    )
    SELECT w.name, coverage_as_of."interval", w.start_ts, w.end_ts, w.state, s.name, w.reason, w.as_of
    FROM (
        SELECT r.name, r.provider_id, r.start_ts, r.end_ts, r.state, NULL::text AS reason, r.as_of FROM runs r
        UNION ALL
        SELECT l.name, l.provider_id, lower(g.part), upper(g.part), 'lacked', NULL, l.as_of
        FROM lacked l CROSS JOIN LATERAL unnest(l.settled) AS g(part)
        UNION ALL
        SELECT l.name, l.provider_id, lower(g.part), upper(g.part), 'unsettled', NULL, l.as_of
        FROM lacked l CROSS JOIN LATERAL unnest(l.unsettled) AS g(part)
        UNION ALL
        SELECT h.name, h.provider_id, h.start_ts, h.end_ts, h.outcome,
               concat_ws(': ', nullif(h.code, ''), nullif(h.detail, '')), h.as_of
        FROM heard h
        WHERE h.outcome <> 'lacked'
    ) w
    JOIN known_sources s ON s.provider_id = w.provider_id
    UNION ALL
    SELECT n.name, coverage_as_of."interval", e.start_ts, e.end_ts, 'confirmed_empty',
           array_to_string(e.providers, '+'), e.basis, e.as_of
    FROM named n
    JOIN confirmed_empty e ON e.symbol_id = n.symbol_id
    WHERE e.interval_s = step_s AND e.end_ts > n.low AND e.start_ts < n.high AND e.as_of <= known_by
    UNION ALL
    SELECT n.name, coverage_as_of."interval", lower(g.part), upper(g.part), 'halted', NULL, o.reason, o.as_of
    FROM named n
    JOIN calendar_overrides o
        ON o.symbol_id = n.symbol_id
        OR o.calendar = (SELECT u.calendar FROM symbol_universe u
                         WHERE u.symbol_id = n.symbol_id AND u.as_of <= known_by ORDER BY u.version DESC LIMIT 1)
    CROSS JOIN LATERAL unnest(o.hours) AS g(part)
    WHERE o.kind = 'halt' AND o.as_of <= known_by AND g.part && tstzrange(n.low, n.high)
      AND NOT EXISTS (SELECT 1 FROM calendar_overrides c WHERE c.cancels = o.override_id AND c.as_of <= known_by);
END
$$;

COMMENT ON FUNCTION coverage_as_of(text[], text, timestamptz, timestamptz, timestamptz, text[]) IS
    'What was known at as_of (NULL: the horizon) of each stretch of 1m or 1d bars. state: present, partial, withdrawn '
    '(bars of a source), lacked, unsettled (asked, no bar; settled or not), confirmed_empty, halted, failed, refused, '
    'not_entitled. Time in no row was never asked for by then. Not ordered.';
