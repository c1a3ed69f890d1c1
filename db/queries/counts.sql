-- name: stored
-- How much there is, for people who watch: cheap on young tables, not meant for years of data.
SELECT (SELECT count(*) FROM candles_intraday) + (SELECT count(*) FROM candles_eod) AS bars,
       (SELECT count(*) FROM candles_intraday WHERE status = 2) AS revised,
       (SELECT count(*) FROM quotes_l1) AS quotes,
       g.found, g.ended, g.open
FROM (
    SELECT coalesce(sum(b.minutes), 0)::bigint AS found,
           coalesce(sum(b.minutes) FILTER (WHERE b.state = 'done'), 0)::bigint AS ended,
           count(*) FILTER (WHERE b.state IN ('pending', 'running', 'paused')) AS open
    FROM (
        SELECT j.state, extract(epoch FROM j.end_ts - j.start_ts) / j.interval_s AS minutes
        FROM backfill_jobs j WHERE j.origin = 'gap' AND j.interval_s = 60
    ) b
) g
