-- name: add_evidence
-- What a source answered besides bars. The key makes the same write, run again, add nothing.
INSERT INTO fetch_evidence (symbol_id, interval_s, provider_id, start_ts, end_ts, asked_at, as_of, outcome, settled,
                            lacking, code, detail)
SELECT u.symbol_id, %(interval_s)s, %(provider_id)s, u.start_ts, u.end_ts, u.asked_at, %(as_of)s, u.outcome, u.settled,
       u.lacking::tstzmultirange, u.code, u.detail
FROM unnest(%(ids)b::int4[], %(starts)b::timestamptz[], %(ends)b::timestamptz[], %(asked)b::timestamptz[],
            %(outcomes)b::text[], %(settled)b::bool[], %(lacking)b::text[], %(codes)b::text[], %(details)b::text[])
    AS u(symbol_id, start_ts, end_ts, asked_at, outcome, settled, lacking, code, detail)
ON CONFLICT DO NOTHING

-- name: add_quarantine
INSERT INTO quarantine (symbol_id, interval_s, provider_id, ts, asked_at, as_of, reason, payload)
VALUES (%(symbol_id)s, %(interval_s)s, %(provider_id)s, %(ts)s, %(asked_at)s, %(as_of)s, %(reason)s, %(payload)s)
ON CONFLICT DO NOTHING

-- name: add_payloads
-- Raw replies; the same bytes of the same ask stand once. Symbols of a reply are joined by newlines on the way.
INSERT INTO provider_payloads (provider_id, asked_at, endpoint, digest, as_of, status, symbols, body)
SELECT %(provider_id)s, u.asked_at, u.endpoint, sha256(u.body), %(as_of)s, u.status, string_to_array(u.symbols, E'\n'),
       u.body
FROM unnest(%(asked)b::timestamptz[], %(endpoints)b::text[], %(statuses)b::int2[], %(symbols)b::text[],
            %(bodies)b::bytea[]) AS u(asked_at, endpoint, status, symbols, body)
ON CONFLICT DO NOTHING

-- name: recent_quarantine
-- By source: the newest refusal's reason, and how many there were.
SELECT s.name, (array_agg(q.reason ORDER BY q.asked_at DESC))[1], count(*)
FROM quarantine q
JOIN sources s USING (provider_id)
WHERE q.asked_at > gapless_now() - %(within)s
GROUP BY s.name
ORDER BY s.name
