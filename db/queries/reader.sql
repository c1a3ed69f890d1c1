-- name: read_only
SET TRANSACTION READ ONLY

-- name: candles
SELECT c.symbol, c."interval", c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.provider,
       c.status, c.as_of
FROM candles_as_of(%(symbols)s::text[], %(interval)s::text, %(start)s::timestamptz, %(end)s::timestamptz,
                   %(as_of)s::timestamptz, %(providers)s::text[]) c
ORDER BY c.symbol COLLATE "C", c.ts

-- name: candles_all
SELECT c.symbol, c."interval", c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.provider,
       c.status, c.as_of
FROM candles_all_as_of(%(symbols)s::text[], %(interval)s::text, %(start)s::timestamptz, %(end)s::timestamptz,
                       %(as_of)s::timestamptz, %(providers)s::text[]) c
ORDER BY c.symbol COLLATE "C", c.ts, c.provider

-- name: quotes
SELECT q.symbol, q.ts, q.provider, q.bid, q.ask, q.bid_size, q.ask_size, q.last, q.last_size, q.as_of
FROM quotes_as_of(%(symbols)s::text[], %(start)s::timestamptz, %(end)s::timestamptz, %(as_of)s::timestamptz,
                  %(providers)s::text[]) q
ORDER BY q.symbol COLLATE "C", q.ts, q.provider

-- name: coverage
SELECT c.symbol, c."interval", c.start_ts, c.end_ts, c.state, c.provider, c.reason, c.as_of
FROM coverage_as_of(%(symbols)s::text[], %(interval)s::text, %(start)s::timestamptz, %(end)s::timestamptz,
                    %(as_of)s::timestamptz, %(providers)s::text[]) c
ORDER BY c.symbol COLLATE "C", c.start_ts, c.end_ts, c.state, c.provider

-- name: latest
SELECT c.symbol, c."interval", c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.provider,
       c.status, c.as_of
FROM latest_as_of(%(symbols)s::text[], %(interval)s::text, %(as_of)s::timestamptz, %(look_back)s::interval,
                  %(providers)s::text[]) c
ORDER BY c.symbol COLLATE "C"

-- name: unknown_names
SELECT w.name
FROM unnest(%(symbols)s::text[]) WITH ORDINALITY AS w(name, n)
WHERE NOT EXISTS (SELECT 1 FROM symbol_names s WHERE s.name = w.name)
ORDER BY w.n
