-- name: ensure_heads
INSERT INTO quote_heads (symbol_id, provider_id)
SELECT u.symbol_id, %(provider_id)s FROM unnest(%(ids)s::int4[]) AS u(symbol_id)
ORDER BY u.symbol_id
ON CONFLICT (symbol_id, provider_id) DO NOTHING

-- name: lock_heads
-- Lock the series of a batch in key order, in a statement of its own.
SELECT h.symbol_id, h.provider_id, h.last_as_of, h.ts, h.bid, h.ask, h.bid_size, h.ask_size, h.last, h.last_size
FROM quote_heads h
WHERE h.symbol_id = ANY (%(ids)b::int4[])
  AND h.provider_id = (SELECT s.provider_id FROM sources s WHERE s.name = %(source)s)
ORDER BY h.symbol_id
FOR UPDATE OF h

-- name: stored
-- Newest version of quotes at given times. The outer bounds exclude chunks.
SELECT v.symbol_id, v.ts, v.bid, v.ask, v.bid_size, v.ask_size, v.last, v.last_size
FROM unnest(%(ids)b::int4[], %(times)b::timestamptz[]) AS u(symbol_id, ts)
CROSS JOIN LATERAL (
    SELECT q.* FROM quotes_l1 q
    WHERE q.symbol_id = u.symbol_id AND q.ts = u.ts AND q.provider_id = %(provider_id)b
      AND q.ts >= %(low)b AND q.ts <= %(high)b
    ORDER BY q.as_of DESC
    LIMIT 1
) v

-- name: copy
COPY quotes_l1 (symbol_id, ts, provider_id, as_of, bid, ask, bid_size, ask_size, last, last_size)
FROM STDIN (FORMAT BINARY)

-- name: move_heads
UPDATE quote_heads h
SET ts = u.ts, bid = u.bid, ask = u.ask, bid_size = u.bid_size, ask_size = u.ask_size, last = u.last,
    last_size = u.last_size, last_as_of = %(as_of)s, updated_at = %(as_of)s
FROM unnest(%(ids)b::int4[], %(times)b::timestamptz[], %(bid)b::float8[], %(ask)b::float8[], %(bid_size)b::float8[],
            %(ask_size)b::float8[], %(last)b::float8[], %(last_size)b::float8[])
    AS u(symbol_id, ts, bid, ask, bid_size, ask_size, last, last_size)
WHERE h.symbol_id = u.symbol_id AND h.provider_id = %(provider_id)s

-- name: touch_heads
UPDATE quote_heads h
SET last_as_of = %(as_of)s, updated_at = %(as_of)s
WHERE h.symbol_id = ANY (%(ids)s::int4[]) AND h.provider_id = %(provider_id)s
