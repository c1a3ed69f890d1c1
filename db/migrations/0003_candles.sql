-- What was learnt: bars, quotes, evidence, raw replies, refusals, and how far each series has been asked.
-- locks: creates new objects only; waits for nobody.

-- No foreign keys on the hot tables: one look-up a row on COPY, and they would block chunk retention.
-- Columns are ordered by width, which saves 12 bytes a row.
CREATE TABLE candles_intraday (
    symbol_id   integer          NOT NULL,
    interval_s  integer          NOT NULL,
    ts          timestamptz      NOT NULL,
    as_of       timestamptz      NOT NULL,
    asked_at    timestamptz      NOT NULL,
    open        double precision,
    high        double precision,
    low         double precision,
    close       double precision,
    volume      double precision,
    vwap        double precision,
    trade_count integer,
    provider_id smallint         NOT NULL,
    status      smallint         NOT NULL,
    reason      text,
    PRIMARY KEY (symbol_id, interval_s, ts, provider_id, as_of),
    CHECK (CASE status
        WHEN 3 THEN num_nonnulls(open, high, low, close, volume, vwap, trade_count) = 0
        ELSE status BETWEEN 0 AND 2 AND num_nonnulls(open, high, low, close) = 4 END)
);

COMMENT ON TABLE candles_intraday IS
    'Append-only revisions. status: 0 partial, 1 final, 2 revised, 3 withdrawn. ts is the bar''s start, as_of when '
    'we learnt it, asked_at when the request was sent.';

CREATE TABLE candles_eod (
    symbol_id   integer          NOT NULL,
    session     date             NOT NULL,
    ts          timestamptz      NOT NULL,
    as_of       timestamptz      NOT NULL,
    asked_at    timestamptz      NOT NULL,
    open        double precision,
    high        double precision,
    low         double precision,
    close       double precision,
    volume      double precision,
    vwap        double precision,
    trade_count integer,
    provider_id smallint         NOT NULL,
    status      smallint         NOT NULL,
    reason      text,
    PRIMARY KEY (symbol_id, session, provider_id, as_of),
    CHECK (CASE status
        WHEN 3 THEN num_nonnulls(open, high, low, close, volume, vwap, trade_count) = 0
        ELSE status BETWEEN 0 AND 2 AND num_nonnulls(open, high, low, close) = 4 END)
);

COMMENT ON TABLE candles_eod IS 'As candles_intraday, one bar a session; ts is the session''s open.';

CREATE TABLE quotes_l1 (
    symbol_id   integer          NOT NULL,
    provider_id smallint         NOT NULL,
    ts          timestamptz      NOT NULL,
    as_of       timestamptz      NOT NULL,
    bid         double precision,
    ask         double precision,
    bid_size    double precision,
    ask_size    double precision,
    last        double precision,
    last_size   double precision,
    PRIMARY KEY (symbol_id, ts, provider_id, as_of)
);

-- Newest quote of a symbol and source: what a writer locks and compares with.
CREATE TABLE quote_heads (
    symbol_id   integer          NOT NULL,
    provider_id smallint         NOT NULL,
    ts          timestamptz,
    bid         double precision,
    ask         double precision,
    bid_size    double precision,
    ask_size    double precision,
    last        double precision,
    last_size   double precision,
    last_as_of  timestamptz,
    updated_at  timestamptz,
    PRIMARY KEY (symbol_id, provider_id)
) WITH (fillfactor = 50);

CREATE TABLE ingestion_cursor (
    symbol_id        integer        NOT NULL,
    interval_s       integer        NOT NULL,
    provider_id      smallint       NOT NULL,
    covered          tstzmultirange NOT NULL DEFAULT '{}',
    unsettled        tstzmultirange NOT NULL DEFAULT '{}',
    lacked           tstzmultirange NOT NULL DEFAULT '{}',
    bridged          tstzmultirange NOT NULL DEFAULT '{}',
    bridged_version  integer,
    last_as_of       timestamptz,
    last_asked_at    timestamptz,
    last_answered_at timestamptz,
    updated_at       timestamptz,
    PRIMARY KEY (symbol_id, interval_s, provider_id)
) WITH (fillfactor = 50);

COMMENT ON TABLE ingestion_cursor IS 'How far a series has been asked of a source: a cache of bars and evidence.';
COMMENT ON COLUMN ingestion_cursor.covered IS 'Asked, answered, and settled when it was asked.';
COMMENT ON COLUMN ingestion_cursor.unsettled IS 'Asked and answered, but the source could still change it then.';
COMMENT ON COLUMN ingestion_cursor.lacked IS 'Covered trading time without a bar in the newest settled answer, not yet confirmed empty.';
COMMENT ON COLUMN ingestion_cursor.bridged IS 'Closed time between covered windows, by the calendar version in bridged_version.';

CREATE TABLE fetch_evidence (
    evidence_id bigint         GENERATED ALWAYS AS IDENTITY,
    symbol_id   integer        NOT NULL,
    interval_s  integer        NOT NULL,
    provider_id smallint       NOT NULL,
    start_ts    timestamptz    NOT NULL,
    end_ts      timestamptz    NOT NULL CHECK (end_ts > start_ts),
    asked_at    timestamptz    NOT NULL,
    as_of       timestamptz    NOT NULL,
    outcome     text           NOT NULL CHECK (outcome IN ('lacked', 'failed', 'refused', 'not_entitled')),
    settled     boolean        NOT NULL,
    lacking     tstzmultirange NOT NULL DEFAULT '{}',
    code        text           NOT NULL DEFAULT '',
    detail      text           NOT NULL DEFAULT '',
    -- The key makes a write that is run again after a lost commit add nothing.
    PRIMARY KEY (symbol_id, interval_s, provider_id, end_ts, start_ts, asked_at, outcome, settled, code)
);

COMMENT ON TABLE fetch_evidence IS
    'What a source answered to a window when it was not simply bars. lacking: expected trading time without a bar; '
    'settled: asked when the source could no longer change it.';

CREATE TABLE confirmed_empty (
    symbol_id  integer     NOT NULL,
    interval_s integer     NOT NULL,
    start_ts   timestamptz NOT NULL,
    end_ts     timestamptz NOT NULL CHECK (end_ts > start_ts),
    as_of      timestamptz NOT NULL,
    providers  text[]      NOT NULL,
    basis      text        NOT NULL CHECK (basis IN ('two_sources', 'only_source_twice')),
    PRIMARY KEY (symbol_id, interval_s, end_ts, start_ts)
);

COMMENT ON TABLE confirmed_empty IS 'Trading time in which nothing traded, by the word of the providers named.';

CREATE TABLE provider_payloads (
    provider_id smallint    NOT NULL,
    asked_at    timestamptz NOT NULL,
    endpoint    text        NOT NULL,
    digest      bytea       NOT NULL,
    as_of       timestamptz NOT NULL,
    status      smallint    NOT NULL,
    symbols     text[]      NOT NULL,
    body        bytea       NOT NULL,
    PRIMARY KEY (provider_id, asked_at, endpoint, digest)
);

COMMENT ON COLUMN provider_payloads.body IS 'The reply''s bytes, compressed by zlib.';
ALTER TABLE provider_payloads ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE quarantine (
    symbol_id   integer     NOT NULL,
    interval_s  integer     NOT NULL,
    provider_id smallint    NOT NULL,
    ts          timestamptz NOT NULL,
    asked_at    timestamptz NOT NULL,
    as_of       timestamptz NOT NULL,
    reason      text        NOT NULL,
    payload     bytea,
    PRIMARY KEY (symbol_id, interval_s, provider_id, ts, asked_at, reason)
);

COMMENT ON TABLE quarantine IS 'Rows of a reply that can''t be a bar, with the reason and the bytes (zlib).';

-- Retention's memory: what lies before before_ts is gone or may go, so it is not asked for again.
CREATE TABLE retention_cuts (
    kind      text        NOT NULL CHECK (kind IN ('candles', 'quotes', 'payloads')),
    before_ts timestamptz NOT NULL,
    as_of     timestamptz NOT NULL,
    PRIMARY KEY (kind, before_ts)
);
