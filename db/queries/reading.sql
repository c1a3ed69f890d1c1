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

-- name: latest
SELECT c.symbol, c."interval", c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.provider,
       c.status, c.as_of
FROM latest_as_of(%(symbols)s::text[], %(interval)s::text, %(as_of)s::timestamptz, %(look_back)s::interval,
                  %(providers)s::text[]) c
ORDER BY c.symbol
