-- The market clock, the write lock that makes as-of reads exact, and the guard of append-only tables.
-- locks: creates new objects only; waits for nobody.

CREATE TABLE market_clock (
    one       boolean     PRIMARY KEY DEFAULT true CHECK (one),
    mode      text        NOT NULL DEFAULT 'system' CHECK (mode IN ('system', 'replay')),
    replay_id text,
    floor_ts  timestamptz NOT NULL DEFAULT '-infinity',
    CHECK ((mode = 'replay') = (replay_id IS NOT NULL))
) WITH (fillfactor = 50);

COMMENT ON TABLE market_clock IS
    'One row: whose time this database keeps. floor_ts is the market time that writes never fall behind.';

INSERT INTO market_clock DEFAULT VALUES;

CREATE TABLE replay_segments (
    real_start   timestamptz      PRIMARY KEY,
    market_start timestamptz      NOT NULL,
    speed        double precision NOT NULL CHECK (speed > 0)
);

COMMENT ON TABLE replay_segments IS
    'Stretches of a replay: from real_start (the machine''s clock) market time runs at speed, until the next row.';

-- Market time, from the machine's clock, without the floor.
CREATE FUNCTION gapless_clock() RETURNS timestamptz
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    real_now timestamptz := clock_timestamp();
    segment  replay_segments;
BEGIN
    IF (SELECT c.mode FROM market_clock c) = 'system' THEN
        RETURN real_now;
    END IF;
    SELECT s.* INTO segment FROM replay_segments s
    ORDER BY s.real_start <= real_now DESC,
             CASE WHEN s.real_start <= real_now THEN s.real_start END DESC,
             s.real_start
    LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this database is marked as a replay, but nobody has said how its time runs'
            USING ERRCODE = 'ZG006', HINT = 'Insert its first segment into replay_segments.';
    END IF;
    RETURN segment.market_start
        + make_interval(secs => extract(epoch FROM real_now - segment.real_start)::float8 * segment.speed);
END
$$;

COMMENT ON FUNCTION gapless_clock() IS 'Market time as the machine''s clock gives it; may lie behind the floor.';

-- Market time; never less than the persisted floor.
CREATE FUNCTION gapless_now() RETURNS timestamptz
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    clock market_clock;
BEGIN
    SELECT c.* INTO STRICT clock FROM market_clock c;
    IF clock.mode = 'system' THEN
        RETURN greatest(clock_timestamp(), clock.floor_ts);
    END IF;
    RETURN greatest(gapless_clock(), clock.floor_ts);
END
$$;

COMMENT ON FUNCTION gapless_now() IS 'Market time now; never less than the persisted floor.';

-- The first half of the advisory key of every write of knowledge; the second half is its market millisecond.
CREATE FUNCTION gapless_horizon_class() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1734438003';

-- The market millisecond in which an instant lies, never a later one, cut to the 32 bits of an advisory key: it
-- comes round every 49 days, an open write lives for seconds.
CREATE FUNCTION gapless_horizon_key(instant timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT mod(floor(extract(epoch FROM instant) * 1000)::bigint, 4294967296)
$$;

-- First statement of every transaction that writes knowledge. Shared, so writers never wait for each other.
CREATE FUNCTION gapless_write_lock() RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    key bigint := gapless_horizon_key(gapless_now());
BEGIN
    -- A key is a signed integer, pg_locks shows it unsigned.
    PERFORM pg_advisory_xact_lock_shared(
        gapless_horizon_class(), (CASE WHEN key > 2147483647 THEN key - 4294967296 ELSE key END)::integer);
END
$$;

COMMENT ON FUNCTION gapless_write_lock() IS
    'Announce a write: until commit no reader''s horizon passes the market millisecond at which this was called.';

-- as_of of a write that already holds its locks; raises the floor about once a real second.
CREATE FUNCTION gapless_stamp(newest timestamptz DEFAULT '-infinity') RETURNS timestamptz
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    market_now timestamptz := gapless_clock();
    clock      market_clock;
    step       interval := interval '1 second';
BEGIN
    SELECT c.* INTO STRICT clock FROM market_clock c;
    IF market_now < clock.floor_ts THEN
        RAISE EXCEPTION 'the market clock is at %, behind this database''s floor %', market_now, clock.floor_ts
            USING ERRCODE = 'ZG002',
                  HINT = 'Set the server''s clock right; writes go on by themselves once it has passed the floor.';
    END IF;
    IF clock.mode = 'replay' THEN
        step := step * (SELECT max(s.speed) FROM replay_segments s);
    END IF;
    IF market_now > clock.floor_ts + step THEN
        -- Whoever finds the row free raises it; nobody queues behind a stopped writer.
        PERFORM 1 FROM market_clock c FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN
            UPDATE market_clock SET floor_ts = greatest(floor_ts, market_now);
        END IF;
    END IF;
    RETURN greatest(market_now, newest + interval '1 microsecond');
END
$$;

COMMENT ON FUNCTION gapless_stamp(timestamptz) IS
    'Knowledge time of a write, taken after its locks: market now, and after the newest as_of given. '
    'Raises ZG002 while the clock is behind the floor.';

-- The newest instant of knowledge that no open write can still change.
CREATE FUNCTION safe_as_of() RETURNS timestamptz
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    read_at  timestamptz;
    now_key  bigint;
    youth    bigint;
    horizon  timestamptz;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'safe_as_of() was called on a standby, which cannot see the open writes of its primary'
            USING ERRCODE = 'ZG003', HINT = 'Read on the primary.';
    END IF;
    -- The clock first, the locks second: a write that takes its lock after the look gets a later as_of.
    read_at := gapless_now();
    now_key := gapless_horizon_key(read_at);
    -- How many milliseconds the oldest open write is behind us; below 0 when it began after our look at the clock.
    SELECT max(mod(now_key - l.objid::bigint + 4294967296 + 2147483648, 4294967296) - 2147483648) INTO youth
    FROM pg_locks l
    WHERE l.locktype = 'advisory'
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.classid::bigint = gapless_horizon_class()
      AND l.objsubid = 2;
    horizon := read_at;
    IF youth >= 0 THEN
        horizon := to_timestamp((floor(extract(epoch FROM read_at) * 1000) - youth) / 1000);
    END IF;
    RETURN least(read_at, horizon) - interval '1 microsecond';
END
$$;

COMMENT ON FUNCTION safe_as_of() IS
    'The newest T whose as-of reads can never change. Call it in a statement before the one that reads '
    '(READ COMMITTED), or before BEGIN (REPEATABLE READ).';

-- Row and TRUNCATE guard of tables that only grow. Retention sets gapless.expiring for its own deletes.
CREATE FUNCTION gapless_append_only() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('gapless.expiring', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% on % is refused: what was known stays known', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'ZG004',
              HINT = 'Write a newer version instead; old rows leave only through gapless_expire().';
END
$$;
