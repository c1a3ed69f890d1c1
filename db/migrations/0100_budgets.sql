-- Long rolling windows of provider budgets: what must survive a FLUSHALL of Redis.
-- locks: creates new objects only; waits for nobody.

CREATE TABLE budget_scopes (
    scope      text        PRIMARY KEY CHECK (scope <> ''),
    first_used timestamptz NOT NULL,
    last_ts    timestamptz NOT NULL
) WITH (fillfactor = 50);

COMMENT ON TABLE budget_scopes IS
    'A limit of a provider that was ever spent from; its row serialises those who lease. last_ts: market time, never goes back.';

CREATE TABLE budget_blocks (
    block_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope         text        NOT NULL REFERENCES budget_scopes,
    share         text        NOT NULL CHECK (share IN ('live', 'backfill')),
    units         integer     NOT NULL CHECK (units >= 0),
    counted_until timestamptz NOT NULL
) WITH (fillfactor = 70);

COMMENT ON TABLE budget_blocks IS
    'Units leased from windows longer than a minute. counted_until: market time at which the last of them can reach the '
    'provider, plus the window. Rows that count no more are used again.';

CREATE INDEX budget_blocks_window ON budget_blocks (scope, counted_until);
