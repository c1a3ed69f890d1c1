-- As-of reads without a join a bar: names, sources and their places are looked up once, in arrays, and plans are kept.
-- locks: replaces functions; waits for nobody.

CREATE FUNCTION gapless_places(capability text, known_by timestamptz, providers text[])
RETURNS integer[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT array_agg(p.place ORDER BY g.provider_id)
        FROM generate_series(1, (SELECT max(s.provider_id) FROM sources s)) g(provider_id)
        LEFT JOIN (
            SELECT r.provider_id, row_number() OVER (ORDER BY r.place, r.provider)::integer AS place
            FROM gapless_ranks(gapless_places.capability, gapless_places.known_by) r
            WHERE gapless_places.providers IS NULL OR r.provider = ANY (gapless_places.providers)
        ) p ON p.provider_id = g.provider_id);
END
$$;
COMMENT ON FUNCTION gapless_places(text, timestamptz, text[]) IS
    'By provider_id: 1 for the best source as ranked at known_by, 2 for the next; NULL: not wanted by the reader.';

CREATE FUNCTION gapless_source_names() RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT array_agg(s.name ORDER BY g.provider_id)
        FROM generate_series(1, (SELECT max(s.provider_id) FROM sources s)) g(provider_id)
        LEFT JOIN sources s ON s.provider_id = g.provider_id);
END
$$;
COMMENT ON FUNCTION gapless_source_names() IS 'Names of sources by provider_id.';

-- ids, names, froms and tos are the symbols, from gapless_names(); places and sources the arrays from above.
CREATE FUNCTION gapless_winners_1m(
    ids integer[], names text[], froms timestamptz[], tos timestamptz[], start_ts timestamptz, end_ts timestamptz,
    known_by timestamptz, places integer[], sources text[])
RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1m'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           gapless_winners_1m.sources[w.provider_id], gapless_status(w.status), w.as_of
    FROM unnest(gapless_winners_1m.ids, gapless_winners_1m.names, gapless_winners_1m.froms, gapless_winners_1m.tos)
        AS n(symbol_id, name, valid_from, valid_to)
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.ts) v.*
        FROM gapless_newest_intraday(n.symbol_id, 60, n.valid_from, n.valid_to, gapless_winners_1m.known_by) v
        WHERE v.status <> 3
          AND v.ts >= gapless_winners_1m.start_ts AND v.ts < gapless_winners_1m.end_ts
          AND gapless_winners_1m.places[v.provider_id] IS NOT NULL
        ORDER BY v.ts DESC, gapless_winners_1m.places[v.provider_id]
    ) w
$$;

CREATE FUNCTION gapless_winners_1d(
    ids integer[], names text[], froms timestamptz[], tos timestamptz[], start_ts timestamptz, end_ts timestamptz,
    known_by timestamptz, places integer[], sources text[])
RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1d'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           gapless_winners_1d.sources[w.provider_id], gapless_status(w.status), w.as_of
    FROM unnest(gapless_winners_1d.ids, gapless_winners_1d.names, gapless_winners_1d.froms, gapless_winners_1d.tos)
        AS n(symbol_id, name, valid_from, valid_to)
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.session) v.*
        FROM gapless_newest_eod(
            n.symbol_id, greatest(gapless_winners_1d.start_ts, n.valid_from),
            least(gapless_winners_1d.end_ts, n.valid_to), gapless_winners_1d.known_by) v
        WHERE v.status <> 3 AND gapless_winners_1d.places[v.provider_id] IS NOT NULL
        ORDER BY v.session DESC, gapless_winners_1d.places[v.provider_id]
    ) w
    WHERE w.ts >= gapless_winners_1d.start_ts AND w.ts < gapless_winners_1d.end_ts
      AND w.ts >= n.valid_from AND w.ts < n.valid_to
$$;

CREATE OR REPLACE FUNCTION candles_as_of(
    symbols text[], "interval" text, start_ts timestamptz, end_ts timestamptz, as_of timestamptz,
    providers text[] DEFAULT NULL)
RETURNS SETOF candle_row LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(candles_as_of.as_of);
    from_ts  timestamptz := coalesce(candles_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(candles_as_of.end_ts, 'infinity');
    step     interval := gapless_step(candles_as_of."interval");
    places   integer[] := gapless_places(
        CASE candles_as_of."interval" WHEN '1d' THEN 'bars_eod' ELSE 'bars_1m' END, known_by, candles_as_of.providers);
    sources  text[] := gapless_source_names();
    ids      integer[];
    names    text[];
    froms    timestamptz[];
    tos      timestamptz[];
BEGIN
    -- Two statements, so that the kept plan of the first can use the key.
    IF candles_as_of.symbols IS NOT NULL THEN
        SELECT array_agg(v.symbol_id), array_agg(v.name), array_agg(v.valid_from), array_agg(v.valid_to)
        INTO ids, names, froms, tos
        FROM (
            SELECT DISTINCT ON (n.name, n.symbol_id, n.valid_from) n.symbol_id, n.name, n.valid_from, n.valid_to
            FROM symbol_names n
            WHERE n.name = ANY (candles_as_of.symbols) AND n.as_of <= known_by
            ORDER BY n.name DESC, n.symbol_id DESC, n.valid_from DESC, n.as_of DESC
        ) v
        WHERE v.valid_to > v.valid_from;
    ELSE
        SELECT array_agg(v.symbol_id), array_agg(v.name), array_agg(v.valid_from), array_agg(v.valid_to)
        INTO ids, names, froms, tos
        FROM gapless_names(NULL, known_by) v;
    END IF;
    IF candles_as_of."interval" = '1m' THEN
        RETURN QUERY
        SELECT b.* FROM gapless_winners_1m(ids, names, froms, tos, from_ts, to_ts, known_by, places, sources) b;
    ELSIF candles_as_of."interval" = '1d' THEN
        RETURN QUERY
        SELECT b.* FROM gapless_winners_1d(ids, names, froms, tos, from_ts, to_ts, known_by, places, sources) b;
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
        FROM gapless_winners_1m(
            ids, names, froms, tos, gapless_step_from(from_ts, step), gapless_step_from(to_ts, step), known_by, places,
            sources) b
        GROUP BY b.symbol, date_bin(step, b.ts, 'epoch');
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION gapless_best_1m(
    symbols text[], start_ts timestamptz, end_ts timestamptz, known_by timestamptz, providers text[])
RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1m'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           (SELECT gapless_source_names())[w.provider_id], gapless_status(w.status), w.as_of
    FROM gapless_names(gapless_best_1m.symbols, gapless_best_1m.known_by) n
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.ts) v.*
        FROM (
            SELECT x.*, (SELECT gapless_places('bars_1m', gapless_best_1m.known_by, gapless_best_1m.providers))
                        [x.provider_id] AS place
            FROM gapless_newest_intraday(n.symbol_id, 60, n.valid_from, n.valid_to, gapless_best_1m.known_by) x
            WHERE x.ts >= gapless_best_1m.start_ts AND x.ts < gapless_best_1m.end_ts
        ) v
        WHERE v.status <> 3 AND v.place IS NOT NULL
        ORDER BY v.ts DESC, v.place
    ) w
$$;

-- One short descending range of the key a symbol, cut off at its first bar that is not withdrawn; shown under the name
-- that the symbol had at that bar.
CREATE OR REPLACE FUNCTION latest_as_of(
    symbols text[], "interval" text, as_of timestamptz, look_back interval DEFAULT interval '7 days',
    providers text[] DEFAULT NULL)
RETURNS SETOF candle_row LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(latest_as_of.as_of);
    from_ts  timestamptz := known_by - latest_as_of.look_back;
    places   integer[] := gapless_places('bars_1m', known_by, latest_as_of.providers);
    sources  text[] := gapless_source_names();
BEGIN
    IF latest_as_of."interval" = '1m' THEN
        RETURN QUERY
        SELECT n.name, '1m'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
               sources[w.provider_id], gapless_status(w.status), w.as_of
        FROM gapless_names(latest_as_of.symbols, known_by) n
        CROSS JOIN LATERAL (
            SELECT v.*
            FROM gapless_newest_intraday(n.symbol_id, 60, from_ts, 'infinity', known_by) v
            WHERE v.status <> 3 AND places[v.provider_id] IS NOT NULL
            ORDER BY v.ts DESC, places[v.provider_id]
            LIMIT 1
        ) w
        -- Outside of the range, whose rows the planner would else count too low and sort.
        WHERE w.ts >= n.valid_from AND w.ts < n.valid_to;
    ELSIF latest_as_of."interval" = '1d' THEN
        RETURN QUERY
        SELECT DISTINCT ON (b.symbol) b.*
        FROM gapless_best_1d(latest_as_of.symbols, from_ts, 'infinity', known_by, latest_as_of.providers) b
        ORDER BY b.symbol, b.ts DESC;
    ELSE
        RAISE EXCEPTION 'interval is %; expected 1m or 1d', latest_as_of."interval" USING ERRCODE = 'ZG005';
    END IF;
END
$$;
