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
halted AS MATERIALIZED (
    SELECT o.symbol_id, o.calendar, range_agg(o.hours) AS span
    FROM calendar_overrides_now o
    WHERE o.kind = 'halt'
    GROUP BY o.symbol_id, o.calendar
),
holes AS (
    -- Look-ups by key for each symbol, no joins: their cost grows with the symbols, whatever the planner guesses.
    SELECT u.symbol_id, u.tier, h.part
    FROM (
        SELECT DISTINCT ON (s.symbol_id) s.symbol_id, s.tier, s.calendar, s.active
        FROM symbol_universe s
        ORDER BY s.symbol_id DESC, s.version DESC
    ) u
    CROSS JOIN LATERAL unnest(
        (SELECT j.hours FROM judged j WHERE j.calendar = u.calendar AND j.tier = u.tier)
        - coalesce((
            SELECT range_agg(CASE WHEN c.folded_to > %(low)s THEN gapless_covered(c) ELSE c.covered END - c.lacked)
            FROM ingestion_cursor c
            WHERE c.symbol_id = u.symbol_id AND c.interval_s = %(interval_s)s
              AND c.provider_id = ANY (ARRAY(SELECT s.provider_id FROM sources s WHERE s.name = ANY (%(sources)s::text[])))
        ), '{}')
        - coalesce((
            SELECT range_agg(tstzrange(e.start_ts, e.end_ts)) FROM confirmed_empty e
            WHERE e.symbol_id = u.symbol_id AND e.interval_s = %(interval_s)s
              AND e.end_ts > %(low)s AND e.start_ts < %(high)s
        ), '{}')
        - coalesce((
            SELECT range_agg(x.span) FROM halted x
            WHERE x.symbol_id = u.symbol_id OR x.symbol_id IS NULL AND x.calendar = u.calendar
        ), '{}')
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
-- Sessions that ended before the deadline without a daily bar, an answer, a confirmation or a halt of their whole length.
WITH expected AS MATERIALIZED (
    SELECT e.calendar, d.tier, e.start_ts, e.end_ts, tstzrange(e.start_ts, e.end_ts) AS hours
    FROM unnest(%(calendars)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS e(calendar, start_ts, end_ts)
    JOIN unnest(%(tiers)s::text[], %(untils)s::timestamptz[]) AS d(tier, until) ON e.end_ts <= d.until
),
halted AS MATERIALIZED (
    SELECT o.symbol_id, o.calendar, range_agg(o.hours) AS span
    FROM calendar_overrides_now o
    WHERE o.kind = 'halt'
    GROUP BY o.symbol_id, o.calendar
),
explained AS MATERIALIZED (
    -- Look-ups by key for each symbol, as above.
    SELECT u.symbol_id, u.tier, u.calendar,
        coalesce((
            SELECT range_agg(CASE WHEN c.folded_to > %(low)s THEN gapless_covered(c) ELSE c.covered END - c.lacked)
            FROM ingestion_cursor c
            WHERE c.symbol_id = u.symbol_id AND c.interval_s = %(interval_s)s
              AND c.provider_id = ANY (ARRAY(SELECT s.provider_id FROM sources s WHERE s.name = ANY (%(sources)s::text[])))
        ), '{}') AS answered,
        coalesce((
            SELECT range_agg(tstzrange(e.start_ts, e.end_ts)) FROM confirmed_empty e
            WHERE e.symbol_id = u.symbol_id AND e.interval_s = %(interval_s)s
              AND e.end_ts > %(low)s AND e.start_ts < %(high)s
        ), '{}') AS empty,
        coalesce((
            SELECT range_agg(x.span) FROM halted x
            WHERE x.symbol_id = u.symbol_id OR x.symbol_id IS NULL AND x.calendar = u.calendar
        ), '{}') AS halted
    FROM (
        SELECT DISTINCT ON (s.symbol_id) s.symbol_id, s.tier, s.calendar, s.active
        FROM symbol_universe s
        ORDER BY s.symbol_id DESC, s.version DESC
    ) u
    WHERE u.active
)
SELECT u.symbol_id, u.tier, w.start_ts, w.end_ts
FROM explained u
JOIN expected w ON w.calendar = u.calendar AND w.tier = u.tier
WHERE NOT u.answered @> w.hours AND NOT u.empty @> w.hours AND NOT u.halted @> w.hours
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

-- name: lacking_symbols
SELECT DISTINCT c.symbol_id
FROM ingestion_cursor c
JOIN sources s ON s.provider_id = c.provider_id
WHERE c.interval_s = %(interval_s)s AND s.name = ANY (%(eligible)s::text[]) AND NOT isempty(c.lacked)
ORDER BY c.symbol_id

-- name: lock_lacked
-- Cursors that lack something; a row that a write holds right now waits for the next pass.
SELECT c.symbol_id, c.provider_id
FROM ingestion_cursor c
JOIN sources s ON s.provider_id = c.provider_id
WHERE c.interval_s = %(interval_s)s AND s.name = ANY (%(eligible)s::text[]) AND NOT isempty(c.lacked)
  AND c.symbol_id = ANY (%(symbols)s::int4[])
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
news AS MATERIALIZED (
    SELECT p.symbol_id, p.provider_id, p.name, p.lacked - coalesce(k.span, '{}') AS lacked
    FROM pending p LEFT JOIN known k ON k.symbol_id = p.symbol_id
),
pairs AS (
    SELECT a.symbol_id, ARRAY[a.name, b.name] AS providers, a.lacked * b.lacked AS span
    FROM news a JOIN news b ON b.symbol_id = a.symbol_id AND b.name > a.name
),
by_two AS (
    -- Each minute goes to the first pair that lacked it.
    SELECT p.symbol_id, p.providers, p.span - coalesce(range_agg(p.span) OVER (
               PARTITION BY p.symbol_id ORDER BY p.providers ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), '{}') AS span
    FROM pairs p
),
units AS MATERIALIZED (
    SELECT n.symbol_id, n.provider_id, n.name, t.start_ts, least(t.start_ts + %(step)s, upper(r.part)) AS end_ts
    FROM news n
    CROSS JOIN LATERAL unnest(n.lacked) AS r(part)
    CROSS JOIN LATERAL generate_series(lower(r.part), upper(r.part) - interval '1 microsecond', %(step)s) AS t(start_ts)
    WHERE cardinality(%(eligible)s::text[]) = 1
),
by_one AS (
    SELECT u.symbol_id, ARRAY[u.name] AS providers, range_agg(tstzrange(u.start_ts, u.end_ts)) AS span
    FROM units u
    WHERE (
        SELECT max(e.asked_at) - min(e.asked_at) FROM fetch_evidence e
        WHERE e.symbol_id = u.symbol_id AND e.interval_s = %(interval_s)s AND e.provider_id = u.provider_id
          AND e.end_ts > u.start_ts AND e.start_ts < u.end_ts
          AND e.outcome = 'lacked' AND e.settled AND e.asked_at >= %(since)s
          AND e.lacking @> tstzrange(u.start_ts, u.end_ts)
    ) >= %(apart)s
    GROUP BY u.symbol_id, u.name
),
found AS (
    SELECT t.symbol_id, t.providers, 'two_sources' AS basis, r.part
    FROM by_two t CROSS JOIN LATERAL unnest(t.span) AS r(part)
    UNION ALL
    SELECT t.symbol_id, t.providers, 'only_source_twice', r.part
    FROM by_one t CROSS JOIN LATERAL unnest(t.span) AS r(part)
),
added AS (
    INSERT INTO confirmed_empty (symbol_id, interval_s, start_ts, end_ts, as_of, providers, basis)
    SELECT f.symbol_id, %(interval_s)s, lower(g.part), upper(g.part), %(as_of)s, f.providers, f.basis
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
        -- From a session's open to the next one's is a day at least, where the clocks do not change in between.
        SELECT range_agg(tstzrange(v.ts, v.ts + interval '1 day'))
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
    ON CONFLICT DO NOTHING
    RETURNING symbol_id, start_ts, end_ts
),
cleared AS (
    UPDATE ingestion_cursor c
    SET lacked = c.lacked - n.span, last_as_of = %(as_of)s, updated_at = %(as_of)s
    FROM pending p
    JOIN (
        SELECT a.symbol_id, range_agg(a.span) AS span
        FROM (SELECT k.symbol_id, k.span FROM known k
              UNION ALL
              SELECT d.symbol_id, tstzmultirange(tstzrange(d.start_ts, d.end_ts)) FROM added d) a
        GROUP BY a.symbol_id
    ) n ON n.symbol_id = p.symbol_id
    WHERE c.symbol_id = p.symbol_id AND c.interval_s = %(interval_s)s AND c.provider_id = p.provider_id
      AND c.lacked && n.span
)
SELECT count(*) FROM added
