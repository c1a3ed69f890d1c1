-- Daily bars by half-year, compressed once they are two weeks old: 250 rows a symbol and year need no smaller chunks.
-- locks: ACCESS EXCLUSIVE on candles_eod while its rows move; an empty or new database: none.
-- migrate: requires=timescaledb

ALTER TABLE candles_eod DISABLE TRIGGER append_only_truncate;
SELECT create_hypertable('candles_eod', by_range('session', INTERVAL '180 days'),
                         create_default_indexes => false, migrate_data => true, if_not_exists => true);
ALTER TABLE candles_eod ENABLE TRIGGER append_only_truncate;
