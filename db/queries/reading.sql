-- name: safe_as_of
SELECT safe_as_of()

-- name: known_names
SELECT DISTINCT n.name FROM symbol_names n WHERE n.name = ANY (%(symbols)s::text[])

-- name: candles
SELECT c.symbol, c."interval", c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.provider,
       c.status, c.as_of
FROM candles_as_of(%(symbols)s::text[], %(interval)s::text, %(start)s::timestamptz, %(end)s::timestamptz,
                   %(as_of)s::timestamptz, %(providers)s::text[]) c
ORDER BY c.symbol, c.ts

-- name: candles_all
SELECT c.symbol, c."interval", c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.provider,
       c.status, c.as_of
FROM candles_all_as_of(%(symbols)s::text[], %(interval)s::text, %(start)s::timestamptz, %(end)s::timestamptz,
                       %(as_of)s::timestamptz, %(providers)s::text[]) c
ORDER BY c.symbol, c.ts, c.provider

-- name: first_known
-- The oldest knowledge of bars that start in a window; daily bars where interval_s is 0.
SELECT min(c.as_of)
FROM (
    SELECT i.as_of
    FROM candles_intraday i
    WHERE i.symbol_id IN (SELECT n.symbol_id FROM symbol_names n WHERE n.name = ANY (%(symbols)s::text[]))
      AND i.interval_s = %(interval_s)s AND i.ts >= %(start)s AND i.ts < %(end)s
    UNION ALL
    SELECT e.as_of
    FROM candles_eod e
    WHERE %(interval_s)s = 0
      AND e.symbol_id IN (SELECT n.symbol_id FROM symbol_names n WHERE n.name = ANY (%(symbols)s::text[]))
      AND e.ts >= %(start)s AND e.ts < %(end)s
) c
