-- Work in progress: backfill rows, sweep slots, the leader's lease, the coordinator's inbox.
-- locks: creates new objects only; waits for nobody.
-- Columns that end in _real, and every lease, are on the database's clock; all other times are market time.

CREATE TABLE rlc_inbox (
    inbox_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    element_id    text        NOT NULL UNIQUE,
    list_key      text        NOT NULL,
    raw           bytea       NOT NULL,
    payload       jsonb,
    kind          text        NOT NULL CHECK (kind IN ('jobs', 'backfill')),
    remaining     text[]      NOT NULL DEFAULT '{}',
    state         text        NOT NULL CHECK (state IN ('new', 'dispatched', 'done', 'expired', 'dead')),
    reason        text,
    lease_expires timestamptz,
    not_after     timestamptz,
    received_at   timestamptz NOT NULL,
    done_at       timestamptz
) WITH (fillfactor = 70);

CREATE INDEX rlc_inbox_open ON rlc_inbox (inbox_id) WHERE state IN ('new', 'dispatched');

CREATE TABLE backfill_jobs (
    job_id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol_id        integer     NOT NULL,
    interval_s       integer     NOT NULL,
    start_ts         timestamptz NOT NULL,
    end_ts           timestamptz NOT NULL CHECK (end_ts > start_ts),
    tier             text        NOT NULL CHECK (tier IN ('T0', 'T1', 'T2')),
    origin           text        NOT NULL CHECK (origin IN ('gap', 'operator', 'coordinator', 'reread')),
    provider         text,
    state            text        NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'running', 'done', 'failed', 'cancelled', 'paused')),
    attempts         integer     NOT NULL DEFAULT 0,
    max_attempts     integer     NOT NULL DEFAULT 8 CHECK (max_attempts > 0),
    lease_owner      text,
    lease_expires    timestamptz,
    next_try         timestamptz NOT NULL DEFAULT '-infinity',
    not_before       timestamptz,
    not_after        timestamptz,
    reason           text,
    answered_by      text[]      NOT NULL DEFAULT '{}',
    inbox_id         bigint,
    dispatched_at    timestamptz,
    dispatched_until timestamptz,
    created_at       timestamptz NOT NULL,
    finished_at      timestamptz,
    CHECK ((state = 'running') = (lease_owner IS NOT NULL AND lease_expires IS NOT NULL))
) WITH (fillfactor = 70);

COMMENT ON COLUMN backfill_jobs.lease_expires IS 'Database clock, as are next_try, dispatched_at and dispatched_until.';

-- Enqueueing the same window twice is one open row.
CREATE UNIQUE INDEX backfill_jobs_open ON backfill_jobs
    (symbol_id, interval_s, start_ts, end_ts, coalesce(provider, ''), coalesce(inbox_id, 0))
    WHERE state IN ('pending', 'running', 'paused');
CREATE INDEX backfill_jobs_due ON backfill_jobs (tier, next_try, job_id) WHERE state = 'pending';
CREATE INDEX backfill_jobs_running ON backfill_jobs (tier, lease_expires) WHERE state = 'running';
CREATE INDEX backfill_jobs_inbox ON backfill_jobs (inbox_id) WHERE inbox_id IS NOT NULL;
-- What was given up lately is not found as a new gap at once.
CREATE INDEX backfill_jobs_parked ON backfill_jobs (symbol_id, interval_s, finished_at)
    WHERE state IN ('failed', 'cancelled');

CREATE TABLE leader_lease (
    name       text        PRIMARY KEY,
    holder     text        NOT NULL,
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

COMMENT ON TABLE leader_lease IS 'Who leads, on the database''s clock; token grows with each new holder and fences the old one off.';

CREATE TABLE sweep_slots (
    kind       text        NOT NULL CHECK (kind IN ('bars_1m', 'quotes_l1', 'bars_eod', 'reread')),
    tier       text        NOT NULL CHECK (tier IN ('T0', 'T1', 'T2')),
    slot_ts    timestamptz NOT NULL,
    phase      integer     NOT NULL DEFAULT 0,
    token      bigint      NOT NULL,
    claimed_at timestamptz NOT NULL,
    pushed_at  timestamptz,
    jobs       integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, tier, slot_ts, phase)
) WITH (fillfactor = 70);

CREATE INDEX sweep_slots_unpushed ON sweep_slots (slot_ts) WHERE pushed_at IS NULL;
