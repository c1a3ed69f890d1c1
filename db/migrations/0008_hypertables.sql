-- Chunks by week for the two tables that grow without end.
-- locks: ACCESS EXCLUSIVE on candles_intraday and quotes_l1 while their rows move; an empty or new database: none.
-- migrate: requires=timescaledb

CREATE EXTENSION IF NOT EXISTS timescaledb;

-- Rows move through a TRUNCATE of the parent, which the guard would refuse.
ALTER TABLE candles_intraday DISABLE TRIGGER append_only_truncate;
ALTER TABLE quotes_l1 DISABLE TRIGGER append_only_truncate;
SELECT create_hypertable('candles_intraday', by_range('ts', INTERVAL '7 days'),
                         create_default_indexes => false, migrate_data => true, if_not_exists => true);
SELECT create_hypertable('quotes_l1', by_range('ts', INTERVAL '7 days'),
                         create_default_indexes => false, migrate_data => true, if_not_exists => true);
ALTER TABLE candles_intraday ENABLE TRIGGER append_only_truncate;
ALTER TABLE quotes_l1 ENABLE TRIGGER append_only_truncate;

-- SkipScan is chosen for DISTINCT ON over nearly unique keys, where it costs 15 to 60 times as much.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET timescaledb.enable_skipscan = off', current_database());
END
$$;
