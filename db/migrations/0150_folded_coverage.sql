-- Coverage of long ago is kept apart from that of now: a cursor is rewritten with each sweep, and a year of sessions in it
-- would make each rewrite three times as dear.
-- locks: ACCESS EXCLUSIVE on ingestion_cursor for an instant; no row is rewritten.

ALTER TABLE ingestion_cursor
    ADD COLUMN covered_before tstzmultirange NOT NULL DEFAULT '{}',
    ADD COLUMN folded_to timestamptz,
    DROP COLUMN bridged,
    DROP COLUMN bridged_version;
-- Out of line, where an update of the row leaves it alone; what lives stays in the row.
ALTER TABLE ingestion_cursor
    ALTER COLUMN covered_before SET STORAGE EXTERNAL,
    ALTER COLUMN covered SET STORAGE MAIN,
    ALTER COLUMN unsettled SET STORAGE MAIN,
    ALTER COLUMN lacked SET STORAGE MAIN,
    SET (toast_tuple_target = 512);
COMMENT ON COLUMN ingestion_cursor.covered IS
    'Asked, answered, and settled when it was asked; what ended before folded_to may stand in covered_before instead.';
COMMENT ON COLUMN ingestion_cursor.covered_before IS 'Covered windows that were folded away, all before folded_to.';

CREATE FUNCTION gapless_covered(cursor ingestion_cursor) RETURNS tstzmultirange LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (gapless_covered.cursor).covered + (gapless_covered.cursor).covered_before
$$;
COMMENT ON FUNCTION gapless_covered(ingestion_cursor) IS 'All covered windows of a cursor.';

CREATE OR REPLACE VIEW coverage AS
SELECT n.name AS symbol, gapless_interval(w.interval_s) AS "interval", w.start_ts, w.end_ts, w.state, w.provider,
       w.reason, w.as_of
FROM gapless_names(NULL, 'infinity') n
CROSS JOIN LATERAL (
    SELECT c.interval_s, lower(r.part) AS start_ts, upper(r.part) AS end_ts, r.state, s.name AS provider,
           NULL::text AS reason, c.last_as_of AS as_of
    FROM ingestion_cursor c
    JOIN sources s ON s.provider_id = c.provider_id
    CROSS JOIN LATERAL (
        SELECT unnest(gapless_covered(c)) AS part, 'covered' AS state
        UNION ALL SELECT unnest(c.unsettled), 'unsettled'
        UNION ALL SELECT unnest(c.lacked), 'lacked'
    ) r
    WHERE c.symbol_id = n.symbol_id
    UNION ALL
    SELECT e.interval_s, e.start_ts, e.end_ts, e.outcome, s.name, concat_ws(': ', nullif(e.code, ''), nullif(e.detail, '')),
           e.as_of
    FROM fetch_evidence e
    JOIN sources s ON s.provider_id = e.provider_id
    WHERE e.symbol_id = n.symbol_id AND e.outcome <> 'lacked'
    UNION ALL
    SELECT e.interval_s, e.start_ts, e.end_ts, 'confirmed_empty', array_to_string(e.providers, '+'), e.basis, e.as_of
    FROM confirmed_empty e
    WHERE e.symbol_id = n.symbol_id
    UNION ALL
    SELECT 60, lower(h.part), upper(h.part), 'halted', NULL, o.reason, o.as_of
    FROM calendar_overrides_now o
    CROSS JOIN LATERAL unnest(o.hours) AS h(part)
    WHERE o.kind = 'halt'
      AND (o.symbol_id = n.symbol_id
           OR o.calendar = (SELECT u.calendar FROM symbol_universe u WHERE u.symbol_id = n.symbol_id
                            ORDER BY u.version DESC LIMIT 1))
    UNION ALL
    SELECT j.interval_s, j.start_ts, j.end_ts, CASE j.state WHEN 'failed' THEN 'parked' ELSE 'gap' END, j.provider,
           concat_ws(': ', j.state, j.reason), coalesce(j.finished_at, j.created_at)
    FROM backfill_jobs j
    WHERE j.symbol_id = n.symbol_id AND j.state IN ('pending', 'running', 'paused', 'failed')
) w;
