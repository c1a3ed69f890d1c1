-- name: intraday
-- Expected minus explained minus confirmed empty minus halted, as multiranges, then minus the bars that are stored
-- in what is left. The cost does not depend on how many bars there are.
WITH expected AS MATERIALIZED (
    SELECT e.calendar, range_agg(tstzrange(e.start_ts, e.end_ts)) AS hours
    FROM unnest(%(calendars)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS e(calendar, start_ts, end_ts)
    GROUP BY e.calendar
),
judged AS MATERIALIZED (
    -- Only whole bars: a deadline inside a bar judges up to its start.
    SELECT e.calendar, d.tier,
           e.hours * tstzmultirange(tstzrange(NULL, date_bin(%(step)s, d.until, 'epoch'))) AS hours
    FROM expected e
    CROSS JOIN unnest(%(tiers)s::text[], %(untils)s::timestamptz[]) AS d(tier, until)
),
edges AS MATERIALIZED (
    SELECT min(lower(j.hours)) AS low, max(upper(j.hours)) AS high FROM judged j WHERE NOT isempty(j.hours)
),
explained AS (
    SELECT c.symbol_id, range_agg(c.covered - c.lacked) AS span
    FROM ingestion_cursor c
    JOIN sources s ON s.provider_id = c.provider_id
    WHERE c.interval_s = %(interval_s)s AND s.name = ANY (%(sources)s::text[]) AND NOT isempty(c.covered)
    GROUP BY c.symbol_id
),
empty AS (
    SELECT e.symbol_id, range_agg(tstzrange(e.start_ts, e.end_ts)) AS span
    FROM confirmed_empty e, edges g
    WHERE e.interval_s = %(interval_s)s AND e.end_ts > g.low AND e.start_ts < g.high
    GROUP BY e.symbol_id
),
halted AS (
    SELECT o.symbol_id, o.calendar, range_agg(o.hours) AS span
    FROM calendar_overrides_now o
    WHERE o.kind = 'halt'
    GROUP BY o.symbol_id, o.calendar
),
holes AS (
    SELECT u.symbol_id, u.tier, h.part
    FROM universe u
    JOIN judged j ON j.calendar = u.calendar AND j.tier = u.tier
    LEFT JOIN explained x ON x.symbol_id = u.symbol_id
    LEFT JOIN empty e ON e.symbol_id = u.symbol_id
    LEFT JOIN halted hs ON hs.symbol_id = u.symbol_id
    LEFT JOIN halted hc ON hc.symbol_id IS NULL AND hc.calendar = u.calendar
    CROSS JOIN LATERAL unnest(
        j.hours - coalesce(x.span, '{}') - coalesce(e.span, '{}') - coalesce(hs.span, '{}') - coalesce(hc.span, '{}')
    ) AS h(part)
    WHERE u.active
)
SELECT h.symbol_id, h.tier, lower(g.part), upper(g.part)
FROM holes h
CROSS JOIN LATERAL unnest(tstzmultirange(h.part) - coalesce((
    SELECT range_agg(tstzrange(v.ts, v.ts + %(step)s))
    FROM (
        SELECT DISTINCT ON (c.ts, c.provider_id) c.ts, c.status
        FROM candles_intraday c
        WHERE c.symbol_id = h.symbol_id AND c.interval_s = %(interval_s)s
          AND c.ts >= lower(h.part) AND c.ts < upper(h.part)
          -- Constants, so that chunks outside are not even planned for.
          AND c.ts >= %(low)s AND c.ts < %(high)s
        ORDER BY c.ts DESC, c.provider_id DESC, c.as_of DESC
    ) v
    WHERE v.status IN (1, 2)
), '{}')) AS g(part)
ORDER BY h.symbol_id, lower(g.part)

-- name: daily
-- Sessions that ended before the deadline without a daily bar, an answer or a confirmation.
WITH expected AS MATERIALIZED (
    SELECT e.calendar, e.start_ts, e.end_ts, tstzrange(e.start_ts, e.end_ts) AS hours
    FROM unnest(%(calendars)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS e(calendar, start_ts, end_ts)
),
explained AS (
    SELECT c.symbol_id, range_agg(c.covered - c.lacked) AS span
    FROM ingestion_cursor c
    JOIN sources s ON s.provider_id = c.provider_id
    WHERE c.interval_s = %(interval_s)s AND s.name = ANY (%(sources)s::text[]) AND NOT isempty(c.covered)
    GROUP BY c.symbol_id
),
empty AS (
    SELECT e.symbol_id, range_agg(tstzrange(e.start_ts, e.end_ts)) AS span
    FROM confirmed_empty e
    WHERE e.interval_s = %(interval_s)s AND e.end_ts > %(low)s AND e.start_ts < %(high)s
    GROUP BY e.symbol_id
),
halted AS (
    SELECT o.symbol_id, o.calendar, range_agg(o.hours) AS span
    FROM calendar_overrides_now o
    WHERE o.kind = 'halt'
    GROUP BY o.symbol_id, o.calendar
)
SELECT u.symbol_id, u.tier, w.start_ts, w.end_ts
FROM universe u
JOIN expected w ON w.calendar = u.calendar
JOIN unnest(%(tiers)s::text[], %(untils)s::timestamptz[]) AS d(tier, until) ON d.tier = u.tier AND w.end_ts <= d.until
LEFT JOIN explained x ON x.symbol_id = u.symbol_id
LEFT JOIN empty e ON e.symbol_id = u.symbol_id
LEFT JOIN halted hs ON hs.symbol_id = u.symbol_id
LEFT JOIN halted hc ON hc.symbol_id IS NULL AND hc.calendar = u.calendar
WHERE u.active
  AND NOT coalesce(x.span @> w.hours, false)
  AND NOT coalesce(e.span @> w.hours, false)
  -- A session that was halted from open to close has no bar.
  AND NOT coalesce(hs.span @> w.hours, false)
  AND NOT coalesce(hc.span @> w.hours, false)
  AND NOT EXISTS (
      SELECT 1
      FROM (
          SELECT DISTINCT ON (c.session, c.provider_id) c.ts, c.status
          FROM candles_eod c
          WHERE c.symbol_id = u.symbol_id
            AND c.session >= (w.start_ts AT TIME ZONE 'UTC')::date - 1
            AND c.session <= (w.end_ts AT TIME ZONE 'UTC')::date + 1
          ORDER BY c.session DESC, c.provider_id DESC, c.as_of DESC
      ) v
      WHERE v.ts = w.start_ts AND v.status IN (1, 2))
ORDER BY u.symbol_id, w.start_ts

-- name: lock_lacked
-- Cursors that lack something; a row that a write holds right now waits for the next pass.
SELECT c.symbol_id, c.provider_id
FROM ingestion_cursor c
JOIN sources s ON s.provider_id = c.provider_id
WHERE c.interval_s = %(interval_s)s AND s.name = ANY (%(eligible)s::text[]) AND NOT isempty(c.lacked)
ORDER BY c.symbol_id, c.interval_s, c.provider_id
FOR UPDATE OF c SKIP LOCKED

-- name: confirm_empty
-- Time that two eligible sources lacked, or the only eligible one twice, and for which nobody has a bar.
WITH pending AS MATERIALIZED (
    SELECT c.symbol_id, c.provider_id, s.name, c.lacked
    FROM unnest(%(ids)s::int4[], %(provider_ids)s::int2[]) AS l(symbol_id, provider_id)
    JOIN ingestion_cursor c
        ON c.symbol_id = l.symbol_id AND c.interval_s = %(interval_s)s AND c.provider_id = l.provider_id
    JOIN sources s ON s.provider_id = c.provider_id
),
known AS MATERIALIZED (
    SELECT p.symbol_id, range_agg(tstzrange(e.start_ts, e.end_ts)) AS span
    FROM (SELECT q.symbol_id, min(lower(q.lacked)) AS low, max(upper(q.lacked)) AS high
          FROM pending q GROUP BY q.symbol_id) p
    JOIN confirmed_empty e
        ON e.symbol_id = p.symbol_id AND e.interval_s = %(interval_s)s AND e.end_ts > p.low AND e.start_ts < p.high
    GROUP BY p.symbol_id
),
news AS (
    SELECT p.symbol_id, p.provider_id, p.name, p.lacked - coalesce(k.span, '{}') AS lacked
    FROM pending p LEFT JOIN known k ON k.symbol_id = p.symbol_id
),
by_two AS (
    SELECT a.symbol_id, range_agg(a.lacked * b.lacked) AS span
    FROM news a JOIN news b ON b.symbol_id = a.symbol_id AND b.provider_id > a.provider_id
    GROUP BY a.symbol_id
),
units AS (
    SELECT n.symbol_id, n.provider_id, t.start_ts, least(t.start_ts + %(step)s, upper(r.part)) AS end_ts
    FROM news n
    CROSS JOIN LATERAL unnest(n.lacked) AS r(part)
    CROSS JOIN LATERAL generate_series(lower(r.part), upper(r.part) - interval '1 microsecond', %(step)s) AS t(start_ts)
    WHERE cardinality(%(eligible)s::text[]) = 1
),
by_one AS (
    SELECT t.symbol_id, range_agg(tstzrange(t.start_ts, t.end_ts)) AS span
    FROM (
        SELECT u.symbol_id, u.start_ts, u.end_ts
        FROM units u
        JOIN fetch_evidence e
            ON e.symbol_id = u.symbol_id AND e.interval_s = %(interval_s)s AND e.provider_id = u.provider_id
            AND e.end_ts > u.start_ts AND e.start_ts < u.end_ts
            AND e.outcome = 'lacked' AND e.settled AND e.asked_at >= %(since)s
            AND e.lacking @> tstzrange(u.start_ts, u.end_ts)
        GROUP BY u.symbol_id, u.start_ts, u.end_ts
        HAVING max(e.asked_at) - min(e.asked_at) >= %(apart)s
    ) t
    GROUP BY t.symbol_id
),
found AS (
    SELECT t.symbol_id, 'two_sources' AS basis, r.part FROM by_two t CROSS JOIN LATERAL unnest(t.span) AS r(part)
    UNION ALL
    SELECT t.symbol_id, 'only_source_twice', r.part FROM by_one t CROSS JOIN LATERAL unnest(t.span) AS r(part)
),
without_bars AS (
    SELECT f.symbol_id, f.basis, g.part
    FROM found f
    CROSS JOIN LATERAL unnest(tstzmultirange(f.part) - coalesce((
        SELECT range_agg(tstzrange(v.ts, v.ts + %(step)s))
        FROM (
            SELECT DISTINCT ON (c.ts, c.provider_id) c.ts, c.status
            FROM candles_intraday c
            WHERE c.symbol_id = f.symbol_id AND c.interval_s = %(interval_s)s
              AND c.ts >= lower(f.part) AND c.ts < upper(f.part)
            ORDER BY c.ts DESC, c.provider_id DESC, c.as_of DESC
        ) v
        WHERE v.status <> 3
    ), '{}') - coalesce((
        SELECT range_agg(tstzrange(v.ts, v.ts + interval '22 hours'))
        FROM (
            SELECT DISTINCT ON (c.session, c.provider_id) c.ts, c.status
            FROM candles_eod c
            WHERE %(interval_s)s = 86400 AND c.symbol_id = f.symbol_id
              AND c.session >= (lower(f.part) AT TIME ZONE 'UTC')::date - 1
              AND c.session <= (upper(f.part) AT TIME ZONE 'UTC')::date + 1
            ORDER BY c.session DESC, c.provider_id DESC, c.as_of DESC
        ) v
        WHERE v.status <> 3
    ), '{}')) AS g(part)
),
added AS (
    INSERT INTO confirmed_empty (symbol_id, interval_s, start_ts, end_ts, as_of, providers, basis)
    SELECT w.symbol_id, %(interval_s)s, lower(w.part), upper(w.part), %(as_of)s,
           ARRAY(SELECT n.name FROM news n WHERE n.symbol_id = w.symbol_id AND n.lacked && w.part ORDER BY n.name), w.basis
    FROM without_bars w
    ON CONFLICT DO NOTHING
    RETURNING symbol_id, start_ts, end_ts
),
cleared AS (
    UPDATE ingestion_cursor c
    SET lacked = c.lacked - coalesce(d.span, '{}') - coalesce(k.span, '{}'), last_as_of = %(as_of)s, updated_at = %(as_of)s
    FROM pending p
    LEFT JOIN (SELECT a.symbol_id, range_agg(tstzrange(a.start_ts, a.end_ts)) AS span FROM added a GROUP BY a.symbol_id) d
        ON d.symbol_id = p.symbol_id
    LEFT JOIN known k ON k.symbol_id = p.symbol_id
    WHERE c.symbol_id = p.symbol_id AND c.interval_s = %(interval_s)s AND c.provider_id = p.provider_id
      AND (c.lacked && coalesce(d.span, '{}') OR c.lacked && coalesce(k.span, '{}'))
)
SELECT count(*) FROM added
