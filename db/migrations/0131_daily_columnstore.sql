-- Compress chunks of daily bars that ended two weeks ago.
-- locks: ACCESS EXCLUSIVE on candles_eod for an instant.
-- migrate: requires=timescaledb-tsl

ALTER TABLE candles_eod SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'symbol_id, provider_id',
    timescaledb.orderby = 'session DESC, as_of DESC');
CALL add_columnstore_policy('candles_eod', after => INTERVAL '14 days', if_not_exists => true);
