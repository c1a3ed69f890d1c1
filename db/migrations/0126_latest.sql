-- The newest bar of each symbol as known at an instant: one short descending range of the key a symbol.
-- locks: creates new objects only; waits for nobody.

CREATE FUNCTION latest_as_of(
    symbols text[], "interval" text, as_of timestamptz, look_back interval DEFAULT interval '7 days',
    providers text[] DEFAULT NULL)
RETURNS SETOF candle_row LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(latest_as_of.as_of);
    from_ts  timestamptz := known_by - latest_as_of.look_back;
BEGIN
    IF latest_as_of."interval" = '1m' THEN
        RETURN QUERY
        SELECT n.name, '1m'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
               w.provider, gapless_status(w.status), w.as_of
        FROM gapless_names(latest_as_of.symbols, known_by) n
        CROSS JOIN LATERAL (
            -- Ends at the first bar that is not withdrawn.
            SELECT v.*, r.provider
            FROM gapless_newest_intraday(
                n.symbol_id, 60, greatest(from_ts, n.valid_from), n.valid_to, known_by) v
            JOIN gapless_ranks('bars_1m', known_by) r ON r.provider_id = v.provider_id
            WHERE v.status <> 3
              AND (latest_as_of.providers IS NULL OR r.provider = ANY (latest_as_of.providers))
            ORDER BY v.ts DESC, r.place, r.provider
            LIMIT 1
        ) w
        WHERE n.valid_to > from_ts;
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
COMMENT ON FUNCTION latest_as_of IS
    'Newest bar (1m or 1d) of the winning source of each symbol as known at as_of (NULL: the horizon), none older than '
    'look_back before that. symbols NULL: all. Not ordered.';
