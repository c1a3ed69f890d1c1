-- The schema that db/migrations make on plain PostgreSQL, for reading: a description, not a script.
-- Made by `python -m db.describe`; a test holds that it equals the migrations' result.

CREATE TYPE candle_row AS (
    symbol text,
    "interval" text,
    ts timestamp with time zone,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    vwap double precision,
    trade_count bigint,
    provider text,
    status text,
    as_of timestamp with time zone
);

CREATE TYPE coverage_row AS (
    symbol text,
    "interval" text,
    start_ts timestamp with time zone,
    end_ts timestamp with time zone,
    state text,
    provider text,
    reason text,
    as_of timestamp with time zone
);

CREATE TYPE quote_row AS (
    symbol text,
    ts timestamp with time zone,
    provider text,
    bid double precision,
    ask double precision,
    bid_size double precision,
    ask_size double precision,
    last double precision,
    last_size double precision,
    as_of timestamp with time zone
);

CREATE TABLE backfill_jobs (
    job_id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    symbol_id integer NOT NULL,
    interval_s integer NOT NULL,
    start_ts timestamp with time zone NOT NULL,
    end_ts timestamp with time zone NOT NULL,
    tier text NOT NULL,
    origin text NOT NULL,
    provider text,
    state text NOT NULL DEFAULT 'pending'::text,
    attempts integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 8,
    lease_owner text,
    lease_expires timestamp with time zone,
    next_try timestamp with time zone NOT NULL DEFAULT '-infinity'::timestamp with time zone,
    not_before timestamp with time zone,
    not_after timestamp with time zone,
    reason text,
    answered_by text[] NOT NULL DEFAULT '{}'::text[],
    inbox_id bigint,
    dispatched_at timestamp with time zone,
    dispatched_until timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    CHECK (((state = 'running'::text) = ((lease_owner IS NOT NULL) AND (lease_expires IS NOT NULL)))),
    CHECK ((end_ts > start_ts)),
    CHECK ((max_attempts > 0)),
    CHECK ((origin = ANY (ARRAY['gap'::text, 'operator'::text, 'coordinator'::text, 'reread'::text]))),
    CHECK ((state = ANY (ARRAY['pending'::text, 'running'::text, 'done'::text, 'failed'::text, 'cancelled'::text, 'paused'::text]))),
    CHECK ((tier = ANY (ARRAY['T0'::text, 'T1'::text, 'T2'::text]))),
    PRIMARY KEY (job_id)
) WITH (fillfactor=70);
-- backfill_jobs.lease_expires: Database clock, as are next_try, dispatched_at and dispatched_until.

CREATE TABLE budget_blocks (
    block_id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    scope text NOT NULL,
    share text NOT NULL,
    units integer NOT NULL,
    counted_until timestamp with time zone NOT NULL,
    CHECK ((share = ANY (ARRAY['live'::text, 'backfill'::text]))),
    CHECK ((units >= 0)),
    FOREIGN KEY (scope) REFERENCES budget_scopes(scope),
    PRIMARY KEY (block_id)
) WITH (fillfactor=70);
-- budget_blocks: Units leased from windows longer than a minute. counted_until: market time at which the last of them can reach the provider, plus the window. Rows that count no more are used again.

CREATE TABLE budget_scopes (
    scope text NOT NULL,
    first_used timestamp with time zone NOT NULL,
    last_ts timestamp with time zone NOT NULL,
    CHECK ((scope <> ''::text)),
    PRIMARY KEY (scope)
) WITH (fillfactor=50);
-- budget_scopes: A limit of a provider that was ever spent from; its row serialises those who lease. last_ts: market time, never goes back.

CREATE TABLE calendar_overrides (
    override_id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    kind text NOT NULL,
    calendar text,
    symbol_id integer,
    session date,
    hours tstzmultirange,
    cancels bigint,
    who text NOT NULL,
    reason text NOT NULL,
    as_of timestamp with time zone NOT NULL,
    CHECK (
CASE kind
    WHEN 'closed'::text THEN ((calendar IS NOT NULL) AND (session IS NOT NULL) AND (hours IS NULL))
    WHEN 'hours'::text THEN ((calendar IS NOT NULL) AND (session IS NOT NULL) AND (NOT isempty(hours)))
    WHEN 'halt'::text THEN (((calendar IS NOT NULL) OR (symbol_id IS NOT NULL)) AND (NOT isempty(hours)))
    ELSE (cancels IS NOT NULL)
END),
    CHECK ((kind = ANY (ARRAY['closed'::text, 'hours'::text, 'halt'::text, 'cancel'::text]))),
    FOREIGN KEY (cancels) REFERENCES calendar_overrides(override_id),
    FOREIGN KEY (symbol_id) REFERENCES symbols(symbol_id),
    PRIMARY KEY (override_id)
);
-- calendar_overrides: What the published arrays do not know. closed, hours: one session of a calendar; halt: no trading in hours, of a symbol or of a whole calendar; cancel: takes an earlier row back.

CREATE TABLE calendar_sessions (
    calendar text NOT NULL,
    version integer NOT NULL,
    session date NOT NULL,
    open_at timestamp with time zone NOT NULL,
    close_at timestamp with time zone NOT NULL,
    hours tstzmultirange NOT NULL,
    CHECK ((NOT isempty(hours))),
    CHECK ((close_at > open_at)),
    FOREIGN KEY (calendar, version) REFERENCES calendar_versions(calendar, version),
    PRIMARY KEY (calendar, version, session)
);

CREATE TABLE calendar_versions (
    calendar text NOT NULL,
    version integer NOT NULL,
    known_from date NOT NULL,
    known_until date NOT NULL,
    checksum text NOT NULL,
    as_of timestamp with time zone NOT NULL,
    CHECK ((known_until >= known_from)),
    PRIMARY KEY (calendar, version)
);

CREATE TABLE candles_eod (
    symbol_id integer NOT NULL,
    session date NOT NULL,
    ts timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    vwap double precision,
    trade_count integer,
    provider_id smallint NOT NULL,
    status smallint NOT NULL,
    reason text,
    CHECK (
CASE status
    WHEN 3 THEN (num_nonnulls(open, high, low, close, volume, vwap, trade_count) = 0)
    ELSE (((status >= 0) AND (status <= 2)) AND (num_nonnulls(open, high, low, close) = 4))
END),
    PRIMARY KEY (symbol_id, session, provider_id, as_of)
);
-- candles_eod: As candles_intraday, one bar a session; ts is the session's open.

CREATE TABLE candles_intraday (
    symbol_id integer NOT NULL,
    interval_s integer NOT NULL,
    ts timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    vwap double precision,
    trade_count integer,
    provider_id smallint NOT NULL,
    status smallint NOT NULL,
    reason text,
    CHECK (
CASE status
    WHEN 3 THEN (num_nonnulls(open, high, low, close, volume, vwap, trade_count) = 0)
    ELSE (((status >= 0) AND (status <= 2)) AND (num_nonnulls(open, high, low, close) = 4))
END),
    PRIMARY KEY (symbol_id, interval_s, ts, provider_id, as_of)
);
-- candles_intraday: Append-only revisions. status: 0 partial, 1 final, 2 revised, 3 withdrawn. ts is the bar's start, as_of when we learnt it, asked_at when the request was sent.

CREATE TABLE confirmed_empty (
    symbol_id integer NOT NULL,
    interval_s integer NOT NULL,
    start_ts timestamp with time zone NOT NULL,
    end_ts timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    providers text[] NOT NULL,
    basis text NOT NULL,
    CHECK ((basis = ANY (ARRAY['two_sources'::text, 'only_source_twice'::text]))),
    CHECK ((end_ts > start_ts)),
    PRIMARY KEY (symbol_id, interval_s, end_ts, start_ts)
);
-- confirmed_empty: Trading time in which nothing traded, by the word of the providers named.

CREATE TABLE corporate_actions (
    symbol_id integer NOT NULL,
    action text NOT NULL,
    ex_date date NOT NULL,
    provider_id smallint NOT NULL,
    as_of timestamp with time zone NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    ratio double precision,
    amount double precision,
    currency text,
    withdrawn boolean NOT NULL DEFAULT false,
    detail jsonb NOT NULL DEFAULT '{}'::jsonb,
    CHECK ((action = ANY (ARRAY['split'::text, 'dividend'::text, 'rename'::text, 'listing'::text, 'delisting'::text]))),
    FOREIGN KEY (provider_id) REFERENCES sources(provider_id),
    FOREIGN KEY (symbol_id) REFERENCES symbols(symbol_id),
    PRIMARY KEY (symbol_id, action, ex_date, provider_id, as_of)
);
-- corporate_actions.ratio: Split: new shares for one old share.
-- corporate_actions.amount: Dividend: cash for one share, in currency.

CREATE TABLE fetch_evidence (
    evidence_id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    symbol_id integer NOT NULL,
    interval_s integer NOT NULL,
    provider_id smallint NOT NULL,
    start_ts timestamp with time zone NOT NULL,
    end_ts timestamp with time zone NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    outcome text NOT NULL,
    settled boolean NOT NULL,
    lacking tstzmultirange NOT NULL DEFAULT '{}'::tstzmultirange,
    code text NOT NULL DEFAULT ''::text,
    detail text NOT NULL DEFAULT ''::text,
    CHECK ((end_ts > start_ts)),
    CHECK ((outcome = ANY (ARRAY['lacked'::text, 'failed'::text, 'refused'::text, 'not_entitled'::text]))),
    PRIMARY KEY (symbol_id, interval_s, provider_id, end_ts, start_ts, asked_at, outcome, settled, code)
);
-- fetch_evidence: What a source answered to a window when it was not simply bars. lacking: expected trading time without a bar; settled: asked when the source could no longer change it.

CREATE TABLE ingestion_cursor (
    symbol_id integer NOT NULL,
    interval_s integer NOT NULL,
    provider_id smallint NOT NULL,
    covered tstzmultirange NOT NULL DEFAULT '{}'::tstzmultirange,
    unsettled tstzmultirange NOT NULL DEFAULT '{}'::tstzmultirange,
    lacked tstzmultirange NOT NULL DEFAULT '{}'::tstzmultirange,
    last_as_of timestamp with time zone,
    last_asked_at timestamp with time zone,
    last_answered_at timestamp with time zone,
    updated_at timestamp with time zone,
    covered_before tstzmultirange NOT NULL DEFAULT '{}'::tstzmultirange,
    folded_to timestamp with time zone,
    PRIMARY KEY (symbol_id, interval_s, provider_id)
) WITH (fillfactor=50, toast_tuple_target=512);
-- ingestion_cursor: How far a series has been asked of a source: a cache of bars and evidence.
-- ingestion_cursor.covered: Asked, answered, and settled when it was asked; what ended before folded_to may stand in covered_before instead.
-- ingestion_cursor.unsettled: Asked and answered, but the source could still change it then.
-- ingestion_cursor.lacked: Covered trading time without a bar in the newest settled answer, not yet confirmed empty.
-- ingestion_cursor.covered_before: Covered windows that were folded away, all before folded_to.

CREATE TABLE leader_lease (
    name text NOT NULL,
    holder text NOT NULL,
    token bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    PRIMARY KEY (name)
) WITH (fillfactor=50);
-- leader_lease: Who leads, on the database's clock; token grows with each new holder and fences the old one off.

CREATE TABLE market_clock (
    one boolean NOT NULL DEFAULT true,
    mode text NOT NULL DEFAULT 'system'::text,
    replay_id text,
    floor_ts timestamp with time zone NOT NULL DEFAULT '-infinity'::timestamp with time zone,
    CHECK (((mode = 'replay'::text) = (replay_id IS NOT NULL))),
    CHECK ((mode = ANY (ARRAY['system'::text, 'replay'::text]))),
    CHECK (one),
    PRIMARY KEY (one)
) WITH (fillfactor=50);
-- market_clock: One row: whose time this database keeps. floor_ts is the market time that writes never fall behind.

CREATE TABLE provider_payloads (
    provider_id smallint NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    endpoint text NOT NULL,
    digest bytea NOT NULL,
    as_of timestamp with time zone NOT NULL,
    status smallint NOT NULL,
    symbols text[] NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (provider_id, asked_at, endpoint, digest)
);
-- provider_payloads.body: The reply's bytes, compressed by zlib.

CREATE TABLE provider_switches (
    switch_id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    provider text NOT NULL,
    enabled boolean NOT NULL,
    until timestamp with time zone,
    who text NOT NULL,
    reason text NOT NULL,
    as_of timestamp with time zone NOT NULL,
    PRIMARY KEY (switch_id)
);
-- provider_switches: The operator's switch, append-only: the newest row of a provider counts, until its end.

CREATE TABLE quarantine (
    symbol_id integer NOT NULL,
    interval_s integer NOT NULL,
    provider_id smallint NOT NULL,
    ts timestamp with time zone NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    reason text NOT NULL,
    payload bytea,
    PRIMARY KEY (symbol_id, interval_s, provider_id, ts, asked_at, reason)
);
-- quarantine: Rows of a reply that can't be a bar, with the reason and the bytes (zlib).

CREATE TABLE quote_heads (
    symbol_id integer NOT NULL,
    provider_id smallint NOT NULL,
    ts timestamp with time zone,
    bid double precision,
    ask double precision,
    bid_size double precision,
    ask_size double precision,
    last double precision,
    last_size double precision,
    last_as_of timestamp with time zone,
    updated_at timestamp with time zone,
    PRIMARY KEY (symbol_id, provider_id)
) WITH (fillfactor=50);

CREATE TABLE quotes_l1 (
    symbol_id integer NOT NULL,
    provider_id smallint NOT NULL,
    ts timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    bid double precision,
    ask double precision,
    bid_size double precision,
    ask_size double precision,
    last double precision,
    last_size double precision,
    PRIMARY KEY (symbol_id, ts, provider_id, as_of)
);

CREATE TABLE replay_segments (
    real_start timestamp with time zone NOT NULL,
    market_start timestamp with time zone NOT NULL,
    speed double precision NOT NULL,
    CHECK ((speed > (0)::double precision)),
    PRIMARY KEY (real_start)
);
-- replay_segments: Stretches of a replay: from real_start (the machine's clock) market time runs at speed, until the next row.

CREATE TABLE retention_cuts (
    kind text NOT NULL,
    before_ts timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    CHECK ((kind = ANY (ARRAY['candles'::text, 'quotes'::text, 'payloads'::text]))),
    PRIMARY KEY (kind, before_ts)
);

CREATE TABLE rlc_inbox (
    inbox_id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    element_id text NOT NULL,
    list_key text NOT NULL,
    raw bytea NOT NULL,
    payload jsonb,
    kind text NOT NULL,
    remaining text[] NOT NULL DEFAULT '{}'::text[],
    state text NOT NULL,
    reason text,
    lease_expires timestamp with time zone,
    not_after timestamp with time zone,
    received_at timestamp with time zone NOT NULL,
    done_at timestamp with time zone,
    CHECK ((kind = ANY (ARRAY['jobs'::text, 'backfill'::text]))),
    CHECK ((state = ANY (ARRAY['new'::text, 'dispatched'::text, 'done'::text, 'expired'::text, 'dead'::text]))),
    PRIMARY KEY (inbox_id),
    UNIQUE (element_id)
) WITH (fillfactor=70);

CREATE TABLE schema_migrations (
    name text NOT NULL,
    checksum text NOT NULL,
    state text NOT NULL,
    applied_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    seconds double precision NOT NULL,
    CHECK ((state = ANY (ARRAY['applied'::text, 'skipped'::text]))),
    PRIMARY KEY (name)
);

CREATE TABLE settings_versions (
    version bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    content jsonb NOT NULL,
    who text NOT NULL,
    as_of timestamp with time zone NOT NULL,
    published_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    CHECK ((jsonb_typeof(content) = 'object'::text)),
    CHECK ((who <> ''::text)),
    PRIMARY KEY (version)
);
-- settings_versions: Append-only: the newest version is in force. content: setting -> text, as the settings file has it, of those settings that are no secret and no address; a setting that it lacks has its default. as_of is market time, published_at the server's own, with which the date of a settings file is compared.

CREATE TABLE source_capabilities (
    provider text NOT NULL,
    capability text NOT NULL,
    eligible boolean NOT NULL,
    reason text NOT NULL DEFAULT ''::text,
    settle_s double precision,
    as_of timestamp with time zone NOT NULL,
    CHECK ((capability = ANY (ARRAY['bars_1m'::text, 'bars_eod'::text, 'quotes_l1'::text, 'options_chain'::text]))),
    CHECK ((provider <> ''::text)),
    CHECK ((settle_s >= (0)::double precision)),
    PRIMARY KEY (provider, capability, as_of)
);
-- source_capabilities: Append-only: the newest row of (provider, capability) counts. eligible: installed, configured and entitled, whatever its health now; reason says why not. settle_s: how long after its end a bar may still change.

CREATE TABLE source_rank (
    capability text NOT NULL,
    as_of timestamp with time zone NOT NULL,
    rank smallint NOT NULL,
    "position" smallint NOT NULL,
    provider text NOT NULL,
    PRIMARY KEY (capability, as_of, "position")
);
-- source_rank: Which source wins: all rows of the newest as_of at or before T. rank is the band, position breaks ties in it.

CREATE TABLE sources (
    provider_id smallint GENERATED ALWAYS AS IDENTITY NOT NULL,
    name text NOT NULL,
    adjustment text NOT NULL DEFAULT 'raw'::text,
    CHECK ((adjustment = ANY (ARRAY['raw'::text, 'split'::text, 'split_div'::text]))),
    CHECK ((name <> ''::text)),
    PRIMARY KEY (provider_id),
    UNIQUE (name)
);
-- sources: A provider and the feed that it serves; rows come on demand, ids are for our tables only.

CREATE TABLE sweep_slots (
    kind text NOT NULL,
    tier text NOT NULL,
    slot_ts timestamp with time zone NOT NULL,
    phase integer NOT NULL DEFAULT 0,
    token bigint NOT NULL,
    claimed_at timestamp with time zone NOT NULL,
    pushed_at timestamp with time zone,
    jobs integer NOT NULL DEFAULT 0,
    CHECK ((kind = ANY (ARRAY['bars_1m'::text, 'quotes_l1'::text, 'bars_eod'::text, 'reread'::text]))),
    CHECK ((tier = ANY (ARRAY['T0'::text, 'T1'::text, 'T2'::text]))),
    PRIMARY KEY (kind, tier, slot_ts, phase)
) WITH (fillfactor=70);

CREATE TABLE symbol_names (
    symbol_id integer NOT NULL,
    name text NOT NULL,
    valid_from timestamp with time zone NOT NULL,
    valid_to timestamp with time zone NOT NULL,
    as_of timestamp with time zone NOT NULL,
    CHECK (((name <> ''::text) AND (name = btrim(name)))),
    CHECK ((valid_to >= valid_from)),
    FOREIGN KEY (symbol_id) REFERENCES symbols(symbol_id),
    PRIMARY KEY (name, symbol_id, valid_from, as_of)
);
-- symbol_names: Names in force over [valid_from, valid_to), append-only: the newest as_of of (name, symbol_id, valid_from) counts; an empty validity takes a name back.

CREATE TABLE symbol_universe (
    symbol_id integer NOT NULL,
    version integer NOT NULL,
    tier text NOT NULL,
    calendar text NOT NULL,
    exchange text NOT NULL DEFAULT ''::text,
    active boolean NOT NULL DEFAULT true,
    as_of timestamp with time zone NOT NULL,
    CHECK ((tier = ANY (ARRAY['T0'::text, 'T1'::text, 'T2'::text]))),
    FOREIGN KEY (symbol_id) REFERENCES symbols(symbol_id),
    FOREIGN KEY (version) REFERENCES universe_versions(version),
    PRIMARY KEY (symbol_id, version)
);
-- symbol_universe: Append-only: the newest version of a symbol counts; a version holds only what changed.

CREATE TABLE symbols (
    symbol_id integer GENERATED ALWAYS AS IDENTITY NOT NULL,
    as_of timestamp with time zone NOT NULL,
    PRIMARY KEY (symbol_id)
);

CREATE TABLE universe_versions (
    version integer NOT NULL,
    as_of timestamp with time zone NOT NULL,
    origin text NOT NULL,
    note text NOT NULL DEFAULT ''::text,
    checksum text NOT NULL,
    PRIMARY KEY (version)
);

CREATE INDEX backfill_jobs_due ON backfill_jobs USING btree (tier, next_try, job_id) WHERE (state = 'pending'::text);

CREATE INDEX backfill_jobs_inbox ON backfill_jobs USING btree (inbox_id) WHERE (inbox_id IS NOT NULL);

CREATE UNIQUE INDEX backfill_jobs_open ON backfill_jobs USING btree (symbol_id, interval_s, start_ts, end_ts, COALESCE(provider, ''::text), COALESCE(inbox_id, (0)::bigint)) WHERE (state = ANY (ARRAY['pending'::text, 'running'::text, 'paused'::text]));

CREATE INDEX backfill_jobs_parked ON backfill_jobs USING btree (symbol_id, interval_s, finished_at) WHERE (state = ANY (ARRAY['failed'::text, 'cancelled'::text]));

CREATE INDEX backfill_jobs_running ON backfill_jobs USING btree (tier, lease_expires) WHERE (state = 'running'::text);

CREATE INDEX budget_blocks_window ON budget_blocks USING btree (scope, counted_until);

CREATE INDEX quarantine_asked_at ON quarantine USING btree (asked_at);

CREATE INDEX rlc_inbox_leased ON rlc_inbox USING btree (lease_expires, inbox_id) WHERE (state = 'dispatched'::text);

CREATE INDEX rlc_inbox_new ON rlc_inbox USING btree (inbox_id) WHERE (state = 'new'::text);

CREATE INDEX rlc_inbox_open ON rlc_inbox USING btree (inbox_id) WHERE (state = ANY (ARRAY['new'::text, 'dispatched'::text]));

CREATE INDEX sweep_slots_unpushed ON sweep_slots USING btree (slot_ts) WHERE (pushed_at IS NULL);

CREATE INDEX symbol_names_by_symbol ON symbol_names USING btree (symbol_id);

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON calendar_overrides FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON calendar_overrides FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON calendar_sessions FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON calendar_sessions FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON calendar_versions FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON calendar_versions FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON candles_eod FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON candles_eod FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON candles_intraday FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON candles_intraday FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON confirmed_empty FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON confirmed_empty FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON corporate_actions FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON corporate_actions FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON fetch_evidence FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON fetch_evidence FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON provider_payloads FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON provider_payloads FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON provider_switches FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON provider_switches FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON quarantine FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON quarantine FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON quotes_l1 FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON quotes_l1 FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON replay_segments FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON replay_segments FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON retention_cuts FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON retention_cuts FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON settings_versions FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON settings_versions FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON source_capabilities FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON source_capabilities FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON source_rank FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON source_rank FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON symbol_names FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON symbol_names FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON symbol_universe FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON symbol_universe FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON symbols FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON symbols FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON universe_versions FOR EACH ROW EXECUTE FUNCTION gapless_append_only();

CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON universe_versions FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();

CREATE FUNCTION candles_all_as_of(symbols text[], "interval" text, start_ts timestamp with time zone, end_ts timestamp with time zone, as_of timestamp with time zone, providers text[] DEFAULT NULL::text[]) RETURNS SETOF candle_row LANGUAGE plpgsql VOLATILE SET plan_cache_mode=force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(candles_all_as_of.as_of);
    from_ts  timestamptz := coalesce(candles_all_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(candles_all_as_of.end_ts, 'infinity');
    step     interval := gapless_step(candles_all_as_of."interval");
BEGIN
    IF candles_all_as_of."interval" = '1m' THEN
        RETURN QUERY SELECT b.* FROM gapless_all_1m(
            candles_all_as_of.symbols, from_ts, to_ts, known_by, candles_all_as_of.providers) b;
    ELSIF candles_all_as_of."interval" = '1d' THEN
        RETURN QUERY SELECT b.* FROM gapless_all_1d(
            candles_all_as_of.symbols, from_ts, to_ts, known_by, candles_all_as_of.providers) b;
    ELSE
        RETURN QUERY
        SELECT b.symbol, candles_all_as_of."interval", date_bin(step, b.ts, 'epoch'),
               (array_agg(b.open ORDER BY b.ts))[1], max(b.high), min(b.low), (array_agg(b.close ORDER BY b.ts DESC))[1],
               CASE WHEN count(b.volume) = count(*) THEN sum(b.volume) END,
               CASE WHEN count(b.vwap) = count(*) THEN sum(b.vwap * b.volume) / nullif(sum(b.volume), 0) END,
               CASE WHEN count(b.trade_count) = count(*) THEN sum(b.trade_count)::bigint END,
               b.provider,
               CASE WHEN bool_or(b.status = 'partial') OR date_bin(step, b.ts, 'epoch') + step > known_by THEN 'partial'
                    WHEN bool_or(b.status = 'revised') THEN 'revised'
                    ELSE 'final' END,
               max(b.as_of)
        FROM gapless_all_1m(
            candles_all_as_of.symbols, gapless_step_from(from_ts, step), gapless_step_from(to_ts, step), known_by,
            candles_all_as_of.providers) b
        WHERE b.status <> 'withdrawn'
        GROUP BY b.symbol, b.provider, date_bin(step, b.ts, 'epoch');
    END IF;
END
$$;
-- As candles_as_of(), the bars of every source.

CREATE FUNCTION candles_as_of(symbols text[], "interval" text, start_ts timestamp with time zone, end_ts timestamp with time zone, as_of timestamp with time zone, providers text[] DEFAULT NULL::text[]) RETURNS SETOF candle_row LANGUAGE plpgsql VOLATILE SET plan_cache_mode=force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(candles_as_of.as_of);
    from_ts  timestamptz := coalesce(candles_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(candles_as_of.end_ts, 'infinity');
    step     interval := gapless_step(candles_as_of."interval");
    places   integer[] := gapless_places(
        CASE candles_as_of."interval" WHEN '1d' THEN 'bars_eod' ELSE 'bars_1m' END, known_by, candles_as_of.providers);
    sources  text[] := gapless_source_names();
    ids      integer[];
    names    text[];
    froms    timestamptz[];
    tos      timestamptz[];
BEGIN
    -- Two statements, so that the kept plan of the first can use the key.
    IF candles_as_of.symbols IS NOT NULL THEN
        SELECT array_agg(v.symbol_id), array_agg(v.name), array_agg(v.valid_from), array_agg(v.valid_to)
        INTO ids, names, froms, tos
        FROM (
            SELECT DISTINCT ON (n.name, n.symbol_id, n.valid_from) n.symbol_id, n.name, n.valid_from, n.valid_to
            FROM symbol_names n
            WHERE n.name = ANY (candles_as_of.symbols) AND n.as_of <= known_by
            ORDER BY n.name DESC, n.symbol_id DESC, n.valid_from DESC, n.as_of DESC
        ) v
        WHERE v.valid_to > v.valid_from;
    ELSE
        SELECT array_agg(v.symbol_id), array_agg(v.name), array_agg(v.valid_from), array_agg(v.valid_to)
        INTO ids, names, froms, tos
        FROM gapless_names(NULL, known_by) v;
    END IF;
    IF candles_as_of."interval" = '1m' THEN
        RETURN QUERY
        SELECT b.* FROM gapless_winners_1m(ids, names, froms, tos, from_ts, to_ts, known_by, places, sources) b;
    ELSIF candles_as_of."interval" = '1d' THEN
        RETURN QUERY
        SELECT b.* FROM gapless_winners_1d(ids, names, froms, tos, from_ts, to_ts, known_by, places, sources) b;
    ELSE
        RETURN QUERY
        SELECT b.symbol, candles_as_of."interval", date_bin(step, b.ts, 'epoch'),
               (array_agg(b.open ORDER BY b.ts))[1], max(b.high), min(b.low), (array_agg(b.close ORDER BY b.ts DESC))[1],
               CASE WHEN count(b.volume) = count(*) THEN sum(b.volume) END,
               CASE WHEN count(b.vwap) = count(*) THEN sum(b.vwap * b.volume) / nullif(sum(b.volume), 0) END,
               CASE WHEN count(b.trade_count) = count(*) THEN sum(b.trade_count)::bigint END,
               string_agg(DISTINCT b.provider, '+' ORDER BY b.provider),
               CASE WHEN bool_or(b.status = 'partial') OR date_bin(step, b.ts, 'epoch') + step > known_by THEN 'partial'
                    WHEN bool_or(b.status = 'revised') THEN 'revised'
                    ELSE 'final' END,
               max(b.as_of)
        FROM gapless_winners_1m(
            ids, names, froms, tos, gapless_step_from(from_ts, step), gapless_step_from(to_ts, step), known_by, places,
            sources) b
        GROUP BY b.symbol, date_bin(step, b.ts, 'epoch');
    END IF;
END
$$;
-- Bars with start_ts <= ts < end_ts of the winning source as known at as_of (NULL: the horizon). symbols NULL: all. 5m, 15m and 1h are made from the one-minute bars then known. Not ordered.

CREATE FUNCTION coverage_as_of(symbols text[], "interval" text, start_ts timestamp with time zone, end_ts timestamp with time zone, as_of timestamp with time zone, providers text[] DEFAULT NULL::text[]) RETURNS SETOF coverage_row LANGUAGE plpgsql VOLATILE SET plan_cache_mode=force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(coverage_as_of.as_of);
    from_ts  timestamptz := coalesce(coverage_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(coverage_as_of.end_ts, 'infinity');
    step     interval := gapless_step(coverage_as_of."interval");
    step_s   integer := extract(epoch FROM step);
BEGIN
    IF coverage_as_of."interval" NOT IN ('1m', '1d') THEN
        RAISE EXCEPTION 'interval % is not collected but made from 1m', coverage_as_of."interval"
            USING ERRCODE = 'ZG005', HINT = 'Ask for the coverage of 1m or 1d.';
    END IF;
    RETURN QUERY
    WITH named AS MATERIALIZED (
        SELECT n.symbol_id, n.name, greatest(n.valid_from, from_ts) AS low, least(n.valid_to, to_ts) AS high
        FROM gapless_names(coverage_as_of.symbols, known_by) n
        WHERE n.valid_to > from_ts AND n.valid_from < to_ts
    ),
    known_sources AS MATERIALIZED (
        SELECT s.provider_id, s.name FROM sources s
        WHERE coverage_as_of.providers IS NULL OR s.name = ANY (coverage_as_of.providers)
    ),
    bars AS MATERIALIZED (
        SELECT b.symbol_id, b.name, b.provider_id, b.ts, b.as_of,
               CASE b.status WHEN 0 THEN 'partial' WHEN 3 THEN 'withdrawn' ELSE 'present' END AS state
        FROM (
            SELECT n.symbol_id, n.name, v.provider_id, v.ts, v.as_of, v.status
            FROM named n
            CROSS JOIN LATERAL gapless_newest_intraday(n.symbol_id, step_s, n.low, n.high, known_by) v
            WHERE step_s = 60
            UNION ALL
            SELECT n.symbol_id, n.name, v.provider_id, v.ts, v.as_of, v.status
            FROM named n
            CROSS JOIN LATERAL gapless_newest_eod(n.symbol_id, n.low, n.high, known_by) v
            WHERE step_s = 86400 AND v.ts >= n.low AND v.ts < n.high
        ) b
    ),
    runs AS (
        -- Bars that follow each other by one step make one stretch.
        SELECT r.name, r.provider_id, r.state, min(r.ts) AS start_ts, max(r.ts) + step AS end_ts, max(r.as_of) AS as_of
        FROM (
            SELECT f.*, sum(f.fresh) OVER (PARTITION BY f.symbol_id, f.name, f.provider_id, f.state ORDER BY f.ts) AS run
            FROM (
                SELECT b.*, (b.ts IS DISTINCT FROM step + lag(b.ts) OVER (
                    PARTITION BY b.symbol_id, b.name, b.provider_id, b.state ORDER BY b.ts))::int AS fresh
                FROM bars b
            ) f
        ) r
        GROUP BY r.symbol_id, r.name, r.provider_id, r.state, r.run
    ),
    heard AS (
        SELECT n.symbol_id, n.name, n.low, n.high, e.*
        FROM named n
        CROSS JOIN LATERAL (
            SELECT e.provider_id, e.start_ts, e.end_ts, e.outcome, e.settled, e.lacking, e.code, e.detail, e.as_of
            FROM fetch_evidence e
            WHERE e.symbol_id = n.symbol_id AND e.interval_s = step_s
              AND e.end_ts > n.low AND e.start_ts < n.high AND e.as_of <= known_by
        ) e
    ),
    lacked AS (
        SELECT h.name, h.provider_id, max(h.as_of) AS as_of,
               coalesce(range_agg(h.lacking) FILTER (WHERE h.settled), '{}')
                   * tstzmultirange(tstzrange(h.low, h.high)) - coalesce(p.span, '{}') AS settled,
               coalesce(range_agg(h.lacking) FILTER (WHERE NOT h.settled), '{}')
                   * tstzmultirange(tstzrange(h.low, h.high)) - coalesce(p.span, '{}')
                   - coalesce(range_agg(h.lacking) FILTER (WHERE h.settled), '{}') AS unsettled
        FROM heard h
        LEFT JOIN (
            SELECT b.symbol_id, b.name, b.provider_id, range_agg(tstzrange(b.ts, b.ts + step)) AS span
            FROM bars b
            GROUP BY b.symbol_id, b.name, b.provider_id
        ) p ON p.symbol_id = h.symbol_id AND p.name = h.name AND p.provider_id = h.provider_id
        WHERE h.outcome = 'lacked'
        GROUP BY h.symbol_id, h.name, h.provider_id, h.low, h.high, p.span
    )
    SELECT w.name, coverage_as_of."interval", w.start_ts, w.end_ts, w.state, s.name, w.reason, w.as_of
    FROM (
        SELECT r.name, r.provider_id, r.start_ts, r.end_ts, r.state, NULL::text AS reason, r.as_of FROM runs r
        UNION ALL
        SELECT l.name, l.provider_id, lower(g.part), upper(g.part), 'lacked', NULL, l.as_of
        FROM lacked l CROSS JOIN LATERAL unnest(l.settled) AS g(part)
        UNION ALL
        SELECT l.name, l.provider_id, lower(g.part), upper(g.part), 'unsettled', NULL, l.as_of
        FROM lacked l CROSS JOIN LATERAL unnest(l.unsettled) AS g(part)
        UNION ALL
        SELECT h.name, h.provider_id, h.start_ts, h.end_ts, h.outcome,
               concat_ws(': ', nullif(h.code, ''), nullif(h.detail, '')), h.as_of
        FROM heard h
        WHERE h.outcome <> 'lacked'
    ) w
    JOIN known_sources s ON s.provider_id = w.provider_id
    UNION ALL
    SELECT n.name, coverage_as_of."interval", e.start_ts, e.end_ts, 'confirmed_empty',
           array_to_string(e.providers, '+'), e.basis, e.as_of
    FROM named n
    JOIN confirmed_empty e ON e.symbol_id = n.symbol_id
    WHERE e.interval_s = step_s AND e.end_ts > n.low AND e.start_ts < n.high AND e.as_of <= known_by
    UNION ALL
    SELECT n.name, coverage_as_of."interval", lower(g.part), upper(g.part), 'halted', NULL, o.reason, o.as_of
    FROM named n
    JOIN calendar_overrides o
        ON o.symbol_id = n.symbol_id
        OR o.calendar = (SELECT u.calendar FROM symbol_universe u
                         WHERE u.symbol_id = n.symbol_id AND u.as_of <= known_by ORDER BY u.version DESC LIMIT 1)
    CROSS JOIN LATERAL unnest(o.hours) AS g(part)
    WHERE o.kind = 'halt' AND o.as_of <= known_by AND g.part && tstzrange(n.low, n.high)
      AND NOT EXISTS (SELECT 1 FROM calendar_overrides c WHERE c.cancels = o.override_id AND c.as_of <= known_by);
END
$$;
-- What was known at as_of (NULL: the horizon) of each stretch of 1m or 1d bars. state: present, partial, withdrawn (bars of a source), lacked, unsettled (asked, no bar; settled or not), confirmed_empty, halted, failed, refused, not_entitled. Time in no row was never asked for by then. Not ordered.

CREATE FUNCTION gapless_all_1d(symbols text[], start_ts timestamp with time zone, end_ts timestamp with time zone, known_by timestamp with time zone, providers text[]) RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1d'::text, v.ts, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trade_count::bigint,
           s.name, gapless_status(v.status), v.as_of
    FROM gapless_names(gapless_all_1d.symbols, gapless_all_1d.known_by) n
    CROSS JOIN LATERAL gapless_newest_eod(
        n.symbol_id, greatest(gapless_all_1d.start_ts, n.valid_from), least(gapless_all_1d.end_ts, n.valid_to),
        gapless_all_1d.known_by) v
    JOIN sources s ON s.provider_id = v.provider_id
    WHERE v.ts >= gapless_all_1d.start_ts AND v.ts < gapless_all_1d.end_ts
      AND v.ts >= n.valid_from AND v.ts < n.valid_to
      AND (gapless_all_1d.providers IS NULL OR s.name = ANY (gapless_all_1d.providers))
$$;

CREATE FUNCTION gapless_all_1m(symbols text[], start_ts timestamp with time zone, end_ts timestamp with time zone, known_by timestamp with time zone, providers text[]) RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1m'::text, v.ts, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trade_count::bigint,
           s.name, gapless_status(v.status), v.as_of
    FROM gapless_names(gapless_all_1m.symbols, gapless_all_1m.known_by) n
    CROSS JOIN LATERAL gapless_newest_intraday(
        n.symbol_id, 60, n.valid_from, n.valid_to, gapless_all_1m.known_by) v
    JOIN sources s ON s.provider_id = v.provider_id
    WHERE v.ts >= gapless_all_1m.start_ts AND v.ts < gapless_all_1m.end_ts
      AND (gapless_all_1m.providers IS NULL OR s.name = ANY (gapless_all_1m.providers))
$$;

CREATE FUNCTION gapless_append_only() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('gapless.expiring', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% on % is refused: what was known stays known', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'ZG004',
              HINT = 'Write a newer version instead; old rows leave only through gapless_expire().';
END
$$;

CREATE FUNCTION gapless_best_1d(symbols text[], start_ts timestamp with time zone, end_ts timestamp with time zone, known_by timestamp with time zone, providers text[]) RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1d'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           w.provider, gapless_status(w.status), w.as_of
    FROM gapless_names(gapless_best_1d.symbols, gapless_best_1d.known_by) n
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.session) v.*, r.provider
        FROM gapless_newest_eod(
            n.symbol_id, greatest(gapless_best_1d.start_ts, n.valid_from), least(gapless_best_1d.end_ts, n.valid_to),
            gapless_best_1d.known_by) v
        JOIN gapless_ranks('bars_eod', gapless_best_1d.known_by) r ON r.provider_id = v.provider_id
        WHERE v.status <> 3
          AND (gapless_best_1d.providers IS NULL OR r.provider = ANY (gapless_best_1d.providers))
        ORDER BY v.session DESC, r.place, r.provider
    ) w
    WHERE w.ts >= gapless_best_1d.start_ts AND w.ts < gapless_best_1d.end_ts
      AND w.ts >= n.valid_from AND w.ts < n.valid_to
$$;

CREATE FUNCTION gapless_best_1m(symbols text[], start_ts timestamp with time zone, end_ts timestamp with time zone, known_by timestamp with time zone, providers text[]) RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1m'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           (SELECT gapless_source_names())[w.provider_id], gapless_status(w.status), w.as_of
    FROM gapless_names(gapless_best_1m.symbols, gapless_best_1m.known_by) n
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.ts) v.*
        FROM (
            SELECT x.*, (SELECT gapless_places('bars_1m', gapless_best_1m.known_by, gapless_best_1m.providers))
                        [x.provider_id] AS place
            FROM gapless_newest_intraday(n.symbol_id, 60, n.valid_from, n.valid_to, gapless_best_1m.known_by) x
            WHERE x.ts >= gapless_best_1m.start_ts AND x.ts < gapless_best_1m.end_ts
        ) v
        WHERE v.status <> 3 AND v.place IS NOT NULL
        ORDER BY v.ts DESC, v.place
    ) w
$$;

CREATE FUNCTION gapless_clock() RETURNS timestamp with time zone LANGUAGE plpgsql VOLATILE AS $$
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
-- Market time as the machine's clock gives it; may lie behind the floor.

CREATE FUNCTION gapless_covered(cursor ingestion_cursor) RETURNS tstzmultirange LANGUAGE sql IMMUTABLE AS $$
    SELECT (gapless_covered.cursor).covered + (gapless_covered.cursor).covered_before
$$;
-- All covered windows of a cursor.

CREATE FUNCTION gapless_end_stuck_writes(older_than_s double precision DEFAULT 10) RETURNS SETOF integer LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path=pg_catalog, public, pg_temp AS $$
DECLARE
    stuck integer;
BEGIN
    -- Chosen first, ended after: in one WHERE the planner may end a process before it looks at the rest.
    FOR stuck IN
        SELECT a.pid
        FROM pg_stat_activity a
        WHERE a.datname = current_database()
          AND a.pid <> pg_backend_pid()
          AND a.xact_start < clock_timestamp() - make_interval(secs => greatest(older_than_s, 1))
          AND EXISTS (SELECT 1 FROM pg_locks l
                      WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 2
                        AND l.classid::bigint = public.gapless_horizon_class())
    LOOP
        IF pg_terminate_backend(stuck) THEN
            RETURN NEXT stuck;
        END IF;
    END LOOP;
END
$$;
-- Terminates writers whose transaction is older than that many real seconds (at least 1); returns their pids.

CREATE FUNCTION gapless_expire(kind text, keep interval, max_rows integer DEFAULT 10000) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path=pg_catalog, public, pg_temp AS $$
DECLARE
    least_keep interval := CASE gapless_expire.kind
        WHEN 'candles' THEN interval '30 days' WHEN 'quotes' THEN interval '1 day'
        WHEN 'payloads' THEN interval '1 hour' WHEN 'work' THEN interval '1 day' END;
    cut        timestamptz := public.gapless_now() - gapless_expire.keep;
    removed    bigint := 0;
    part       bigint;
    target     text;
    column_    text;
BEGIN
    IF gapless_expire.keep < least_keep OR gapless_expire.keep IS NULL THEN
        RAISE EXCEPTION 'keep is %; % may not go before %', gapless_expire.keep, gapless_expire.kind, least_keep
            USING ERRCODE = 'ZG005';
    END IF;
    IF gapless_expire.kind <> 'work' THEN
        -- One row a day is enough to know what is gone.
        INSERT INTO public.retention_cuts (kind, before_ts, as_of)
        VALUES (gapless_expire.kind, date_trunc('day', cut, 'UTC'), public.gapless_now()) ON CONFLICT DO NOTHING;
    END IF;
    -- Not as a clause of the function: that takes a superuser.
    PERFORM set_config('gapless.expiring', 'on', true);
    FOREACH target IN ARRAY CASE gapless_expire.kind
        WHEN 'candles' THEN ARRAY['candles_intraday', 'candles_eod'] WHEN 'quotes' THEN ARRAY['quotes_l1']
        WHEN 'payloads' THEN ARRAY['provider_payloads', 'quarantine']
        ELSE ARRAY['rlc_inbox', 'sweep_slots', 'backfill_jobs'] END
    LOOP
        IF public.gapless_is_hypertable(target) THEN
            -- Whole chunks go at once; what shares a chunk with younger rows stays until these are old enough.
            -- The argument's type has to be the partitioning column's.
            EXECUTE format('SELECT count(*) FROM public.drop_chunks($1::regclass, older_than => $2::%s)',
                           CASE target WHEN 'candles_eod' THEN 'date' ELSE 'timestamptz' END)
            INTO part USING 'public.' || target, cut;
            removed := removed + part;
            CONTINUE;
        END IF;
        column_ := CASE target WHEN 'provider_payloads' THEN 'asked_at' WHEN 'quarantine' THEN 'asked_at'
            WHEN 'rlc_inbox' THEN 'done_at' WHEN 'sweep_slots' THEN 'pushed_at' WHEN 'backfill_jobs' THEN 'finished_at'
            ELSE 'ts' END;
        EXECUTE format(
            'DELETE FROM public.%I WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM public.%I t WHERE t.%I < $1 LIMIT $2))',
            target, target, column_)
        USING cut, gapless_expire.max_rows - removed;
        GET DIAGNOSTICS part = ROW_COUNT;
        removed := removed + part;
    END LOOP;
    PERFORM set_config('gapless.expiring', 'off', true);
    RETURN removed;
END
$$;
-- The only delete. kind: candles, quotes, payloads or work; keep: how much market time stays.

CREATE FUNCTION gapless_grant_roles() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    relation record;
BEGIN
    FOR relation IN
        SELECT c.oid::regclass::text AS name, c.relkind,
               EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'append_only') AS append_only
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
          AND pg_has_role(current_user, c.relowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, gapless_reader, gapless_writer', relation.name);
        EXECUTE format('GRANT SELECT ON %s TO gapless_reader, gapless_writer', relation.name);
        IF relation.relkind <> 'v' AND relation.name NOT IN ('schema_migrations', 'retention_cuts') THEN
            EXECUTE format('GRANT INSERT%s ON %s TO gapless_writer',
                           CASE WHEN relation.append_only THEN '' ELSE ', UPDATE' END, relation.name);
        END IF;
    END LOOP;
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO gapless_writer', current_database());
    REVOKE ALL ON FUNCTION gapless_expire(text, interval, integer) FROM PUBLIC;
    REVOKE ALL ON FUNCTION gapless_end_stuck_writes(double precision) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION gapless_expire(text, interval, integer) TO gapless_writer;
    GRANT EXECUTE ON FUNCTION gapless_end_stuck_writes(double precision) TO gapless_writer;
END
$$;

CREATE FUNCTION gapless_horizon(wanted timestamp with time zone) RETURNS timestamp with time zone LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    horizon  timestamptz := safe_as_of();
    one_view boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
    patience timestamptz := clock_timestamp() + make_interval(
        secs => coalesce(nullif(current_setting('gapless.horizon_wait_s', true), ''), '15')::float8);
BEGIN
    IF wanted IS NULL THEN
        IF one_view THEN
            RAISE EXCEPTION 'as_of is NULL in a % transaction, whose snapshot is older than the horizon',
                    current_setting('transaction_isolation')
                USING ERRCODE = 'ZG001', HINT = 'SELECT safe_as_of() before BEGIN and pass it as as_of.';
        END IF;
        RETURN horizon;
    END IF;
    -- What has not happened yet is refused at once; so is waiting with a snapshot that will not see what is waited for.
    WHILE wanted > horizon AND wanted < gapless_now() AND NOT one_view AND clock_timestamp() < patience LOOP
        PERFORM pg_sleep(0.001);
        horizon := safe_as_of();
    END LOOP;
    IF wanted > horizon THEN
        RAISE EXCEPTION 'as_of % lies beyond the horizon %: open writes can still change that answer', wanted, horizon
            USING ERRCODE = 'ZG001', HINT = 'Read at safe_as_of(), or pass NULL for the horizon.';
    END IF;
    RETURN wanted;
END
$$;

CREATE FUNCTION gapless_horizon_class() RETURNS integer LANGUAGE sql IMMUTABLE AS $$SELECT 1734438003$$;

CREATE FUNCTION gapless_horizon_key(instant timestamp with time zone) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT mod(floor(extract(epoch FROM instant) * 1000)::bigint, 4294967296)
$$;

CREATE FUNCTION gapless_interval(interval_s integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE interval_s WHEN 60 THEN '1m' WHEN 300 THEN '5m' WHEN 900 THEN '15m' WHEN 3600 THEN '1h' ELSE '1d' END
$$;

CREATE FUNCTION gapless_is_hypertable(relation text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_ boolean := false;
BEGIN
    IF to_regclass('timescaledb_information.hypertables') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT 1 FROM timescaledb_information.hypertables h '
                'WHERE h.hypertable_schema = ''public'' AND h.hypertable_name = $1)' INTO found_ USING relation;
    END IF;
    RETURN found_;
END
$$;

CREATE FUNCTION gapless_names(names text[], known_by timestamp with time zone) RETURNS TABLE(symbol_id integer, name text, valid_from timestamp with time zone, valid_to timestamp with time zone) LANGUAGE sql STABLE AS $$
    SELECT v.symbol_id, v.name, v.valid_from, v.valid_to
    FROM (
        SELECT DISTINCT ON (n.name, n.symbol_id, n.valid_from) n.symbol_id, n.name, n.valid_from, n.valid_to
        FROM symbol_names n
        WHERE (gapless_names.names IS NULL OR n.name = ANY (gapless_names.names))
          AND n.as_of <= gapless_names.known_by
        ORDER BY n.name DESC, n.symbol_id DESC, n.valid_from DESC, n.as_of DESC
    ) v
    WHERE v.valid_to > v.valid_from
$$;

CREATE FUNCTION gapless_newest_eod(symbol_id integer, start_ts timestamp with time zone, end_ts timestamp with time zone, known_by timestamp with time zone) RETURNS SETOF candles_eod LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (c.session, c.provider_id) c.*
    FROM candles_eod c
    WHERE c.symbol_id = gapless_newest_eod.symbol_id
      AND c.session >= (gapless_newest_eod.start_ts AT TIME ZONE 'UTC')::date - 1
      AND c.session <= (gapless_newest_eod.end_ts AT TIME ZONE 'UTC')::date + 1
      AND c.as_of <= gapless_newest_eod.known_by
    ORDER BY c.session DESC, c.provider_id DESC, c.as_of DESC
$$;

CREATE FUNCTION gapless_newest_intraday(symbol_id integer, interval_s integer, start_ts timestamp with time zone, end_ts timestamp with time zone, known_by timestamp with time zone) RETURNS SETOF candles_intraday LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (c.ts, c.provider_id) c.*
    FROM candles_intraday c
    WHERE c.symbol_id = gapless_newest_intraday.symbol_id
      AND c.interval_s = gapless_newest_intraday.interval_s
      AND c.ts >= gapless_newest_intraday.start_ts
      AND c.ts < gapless_newest_intraday.end_ts
      AND c.as_of <= gapless_newest_intraday.known_by
    ORDER BY c.ts DESC, c.provider_id DESC, c.as_of DESC
$$;

CREATE FUNCTION gapless_now() RETURNS timestamp with time zone LANGUAGE plpgsql VOLATILE AS $$
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
-- Market time now; never less than the persisted floor.

CREATE FUNCTION gapless_places(capability text, known_by timestamp with time zone, providers text[]) RETURNS integer[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT array_agg(p.place ORDER BY g.provider_id)
        FROM generate_series(1, (SELECT max(s.provider_id) FROM sources s)) g(provider_id)
        LEFT JOIN (
            SELECT r.provider_id, row_number() OVER (ORDER BY r.place, r.provider)::integer AS place
            FROM gapless_ranks(gapless_places.capability, gapless_places.known_by) r
            WHERE gapless_places.providers IS NULL OR r.provider = ANY (gapless_places.providers)
        ) p ON p.provider_id = g.provider_id);
END
$$;
-- By provider_id: 1 for the best source as ranked at known_by, 2 for the next; NULL: not wanted by the reader.

CREATE FUNCTION gapless_ranks(capability text, known_by timestamp with time zone) RETURNS TABLE(provider_id smallint, provider text, place smallint) LANGUAGE sql STABLE AS $$
    SELECT s.provider_id, s.name, coalesce(r.position, 32767::smallint)
    FROM sources s
    LEFT JOIN source_rank r
        ON r.provider = s.name
        AND r.capability = gapless_ranks.capability
        AND r.as_of = (SELECT max(x.as_of) FROM source_rank x
                       WHERE x.capability = gapless_ranks.capability AND x.as_of <= gapless_ranks.known_by)
$$;

CREATE FUNCTION gapless_source_names() RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT array_agg(s.name ORDER BY g.provider_id)
        FROM generate_series(1, (SELECT max(s.provider_id) FROM sources s)) g(provider_id)
        LEFT JOIN sources s ON s.provider_id = g.provider_id);
END
$$;
-- Names of sources by provider_id.

CREATE FUNCTION gapless_stamp(newest timestamp with time zone DEFAULT '-infinity'::timestamp with time zone) RETURNS timestamp with time zone LANGUAGE plpgsql VOLATILE AS $$
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
-- Knowledge time of a write, taken after its locks: market now, and after the newest as_of given. Raises ZG002 while the clock is behind the floor.

CREATE FUNCTION gapless_status(status smallint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE status WHEN 0 THEN 'partial' WHEN 1 THEN 'final' WHEN 2 THEN 'revised' ELSE 'withdrawn' END
$$;

CREATE FUNCTION gapless_step("interval" text) RETURNS interval LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    CASE gapless_step."interval"
        WHEN '1m' THEN RETURN interval '1 minute';
        WHEN '5m' THEN RETURN interval '5 minutes';
        WHEN '15m' THEN RETURN interval '15 minutes';
        WHEN '1h' THEN RETURN interval '1 hour';
        WHEN '1d' THEN RETURN interval '1 day';
        ELSE RAISE EXCEPTION 'interval % is unknown; expected 1m, 5m, 15m, 1h or 1d', quote_nullable("interval")
            USING ERRCODE = 'ZG005';
    END CASE;
END
$$;

CREATE FUNCTION gapless_step_from(instant timestamp with time zone, step interval) RETURNS timestamp with time zone LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN isfinite(instant)
        THEN date_bin(step, instant + step - interval '1 microsecond', 'epoch') ELSE instant END
$$;

CREATE FUNCTION gapless_winners_1d(ids integer[], names text[], froms timestamp with time zone[], tos timestamp with time zone[], start_ts timestamp with time zone, end_ts timestamp with time zone, known_by timestamp with time zone, places integer[], sources text[]) RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1d'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           gapless_winners_1d.sources[w.provider_id], gapless_status(w.status), w.as_of
    FROM unnest(gapless_winners_1d.ids, gapless_winners_1d.names, gapless_winners_1d.froms, gapless_winners_1d.tos)
        AS n(symbol_id, name, valid_from, valid_to)
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.session) v.*
        FROM gapless_newest_eod(
            n.symbol_id, greatest(gapless_winners_1d.start_ts, n.valid_from),
            least(gapless_winners_1d.end_ts, n.valid_to), gapless_winners_1d.known_by) v
        WHERE v.status <> 3 AND gapless_winners_1d.places[v.provider_id] IS NOT NULL
        ORDER BY v.session DESC, gapless_winners_1d.places[v.provider_id]
    ) w
    WHERE w.ts >= gapless_winners_1d.start_ts AND w.ts < gapless_winners_1d.end_ts
      AND w.ts >= n.valid_from AND w.ts < n.valid_to
$$;

CREATE FUNCTION gapless_winners_1m(ids integer[], names text[], froms timestamp with time zone[], tos timestamp with time zone[], start_ts timestamp with time zone, end_ts timestamp with time zone, known_by timestamp with time zone, places integer[], sources text[]) RETURNS SETOF candle_row LANGUAGE sql STABLE AS $$
    SELECT n.name, '1m'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
           gapless_winners_1m.sources[w.provider_id], gapless_status(w.status), w.as_of
    FROM unnest(gapless_winners_1m.ids, gapless_winners_1m.names, gapless_winners_1m.froms, gapless_winners_1m.tos)
        AS n(symbol_id, name, valid_from, valid_to)
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (v.ts) v.*
        FROM gapless_newest_intraday(n.symbol_id, 60, n.valid_from, n.valid_to, gapless_winners_1m.known_by) v
        WHERE v.status <> 3
          AND v.ts >= gapless_winners_1m.start_ts AND v.ts < gapless_winners_1m.end_ts
          AND gapless_winners_1m.places[v.provider_id] IS NOT NULL
        ORDER BY v.ts DESC, gapless_winners_1m.places[v.provider_id]
    ) w
$$;

CREATE FUNCTION gapless_write_lock() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    key bigint := gapless_horizon_key(gapless_now());
BEGIN
    -- A key is a signed integer, pg_locks shows it unsigned.
    PERFORM pg_advisory_xact_lock_shared(
        gapless_horizon_class(), (CASE WHEN key > 2147483647 THEN key - 4294967296 ELSE key END)::integer);
END
$$;
-- Announce a write: until commit no reader's horizon passes the market millisecond at which this was called.

CREATE FUNCTION latest_as_of(symbols text[], "interval" text, as_of timestamp with time zone, look_back interval DEFAULT '7 days'::interval, providers text[] DEFAULT NULL::text[]) RETURNS SETOF candle_row LANGUAGE plpgsql VOLATILE SET plan_cache_mode=force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(latest_as_of.as_of);
    from_ts  timestamptz := known_by - latest_as_of.look_back;
    places   integer[] := gapless_places('bars_1m', known_by, latest_as_of.providers);
    sources  text[] := gapless_source_names();
BEGIN
    IF latest_as_of."interval" = '1m' THEN
        RETURN QUERY
        SELECT n.name, '1m'::text, w.ts, w.open, w.high, w.low, w.close, w.volume, w.vwap, w.trade_count::bigint,
               sources[w.provider_id], gapless_status(w.status), w.as_of
        FROM gapless_names(latest_as_of.symbols, known_by) n
        CROSS JOIN LATERAL (
            SELECT v.*
            FROM gapless_newest_intraday(n.symbol_id, 60, from_ts, 'infinity', known_by) v
            WHERE v.status <> 3 AND places[v.provider_id] IS NOT NULL
            ORDER BY v.ts DESC, places[v.provider_id]
            LIMIT 1
        ) w
        -- Outside of the range, whose rows the planner would else count too low and sort.
        WHERE w.ts >= n.valid_from AND w.ts < n.valid_to;
    ELSIF latest_as_of."interval" = '1d' THEN
        RETURN QUERY
        SELECT DISTINCT ON (b.symbol) b.*
        FROM gapless_best_1d(latest_as_of.symbols, from_ts, 'infinity', known_by, latest_as_of.providers) b
        ORDER BY b.symbol, b.ts DESC;
    ELSE
        RAISE EXCEPTION 'interval is %; expected 1m or 1d', latest_as_of."interval" USING ERRCODE = 'ZG005';
    END IF;
END
$$;
-- Newest bar (1m or 1d) of the winning source of each symbol as known at as_of (NULL: the horizon), none older than look_back before that. symbols NULL: all. Not ordered.

CREATE FUNCTION quotes_as_of(symbols text[], start_ts timestamp with time zone, end_ts timestamp with time zone, as_of timestamp with time zone, providers text[] DEFAULT NULL::text[]) RETURNS SETOF quote_row LANGUAGE plpgsql VOLATILE SET plan_cache_mode=force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    known_by timestamptz := gapless_horizon(quotes_as_of.as_of);
    from_ts  timestamptz := coalesce(quotes_as_of.start_ts, '-infinity');
    to_ts    timestamptz := coalesce(quotes_as_of.end_ts, 'infinity');
BEGIN
    RETURN QUERY
    SELECT n.name, q.ts, s.name, q.bid, q.ask, q.bid_size, q.ask_size, q.last, q.last_size, q.as_of
    FROM gapless_names(quotes_as_of.symbols, known_by) n
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (c.ts, c.provider_id) c.*
        FROM quotes_l1 c
        WHERE c.symbol_id = n.symbol_id
          AND c.ts >= greatest(n.valid_from, from_ts) AND c.ts < least(n.valid_to, to_ts)
          AND c.as_of <= known_by
        ORDER BY c.ts DESC, c.provider_id DESC, c.as_of DESC
    ) q
    JOIN sources s ON s.provider_id = q.provider_id
    WHERE quotes_as_of.providers IS NULL OR s.name = ANY (quotes_as_of.providers);
END
$$;
-- Quotes with start_ts <= ts < end_ts of every source as known at as_of (NULL: the horizon). symbols NULL: all. Not ordered.

CREATE FUNCTION safe_as_of() RETURNS timestamp with time zone LANGUAGE plpgsql VOLATILE AS $$
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
-- The newest T whose as-of reads can never change. Call it in a statement before the one that reads (READ COMMITTED), or before BEGIN (REPEATABLE READ).

CREATE VIEW calendar_overrides_now (override_id bigint, kind text, calendar text, symbol_id integer, session date, hours tstzmultirange, who text, reason text, as_of timestamp with time zone);

CREATE VIEW candles (symbol text, "interval" text, ts timestamp with time zone, open double precision, high double precision, low double precision, close double precision, volume double precision, vwap double precision, trade_count bigint, provider text, status text, as_of timestamp with time zone);
-- Newest revision of the winning source, one row a bar; intervals 1m and 1d. 5m, 15m and 1h come from candles_as_of(). For reads that never change use candles_as_of().

CREATE VIEW candles_all (symbol text, "interval" text, ts timestamp with time zone, open double precision, high double precision, low double precision, close double precision, volume double precision, vwap double precision, trade_count bigint, provider text, status text, as_of timestamp with time zone);
-- Newest revision of every source; intervals 1m and 1d. A withdrawn bar is a row with status withdrawn and no prices.

CREATE VIEW coverage (symbol text, "interval" text, start_ts timestamp with time zone, end_ts timestamp with time zone, state text, provider text, reason text, as_of timestamp with time zone);
-- What is known of each stretch of a series. state: covered (asked, answered, settled), unsettled, lacked (covered without a bar, not confirmed), confirmed_empty, halted, failed, refused, not_entitled (a source's answer), gap (a backfill is on its way), parked (a backfill was given up).

CREATE VIEW quotes (symbol text, ts timestamp with time zone, provider text, bid double precision, ask double precision, bid_size double precision, ask_size double precision, last double precision, last_size double precision, as_of timestamp with time zone);
-- Newest version of every quote of every source.

CREATE VIEW universe (symbol_id integer, symbol text, tier text, calendar text, exchange text, active boolean, version integer, as_of timestamp with time zone);
