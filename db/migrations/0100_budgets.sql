-- Long rolling windows of provider budgets: what must survive a FLUSHALL of Redis.
-- locks: creates new objects only; waits for nobody.

CREATE TABLE budget_blocks (
    source     text        NOT NULL,
    limit_name text        NOT NULL,
    taken_at   timestamptz NOT NULL,
    units      integer     NOT NULL CHECK (units > 0)
);

COMMENT ON TABLE budget_blocks IS
    'Blocks of units that processes took from windows longer than a minute; market time. What is not spent is forfeited.';

CREATE INDEX budget_blocks_window ON budget_blocks (source, limit_name, taken_at);

CREATE TABLE budget_sources (
    source     text        PRIMARY KEY,
    first_used timestamptz NOT NULL
);

COMMENT ON TABLE budget_sources IS 'Sources that were ever asked: after a FLUSHALL their short windows count as full once.';
