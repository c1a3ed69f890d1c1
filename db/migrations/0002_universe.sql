-- Who is collected, under which names, on which calendars, from which sources and in which order.
-- locks: creates new objects only; waits for nobody.

CREATE TABLE sources (
    provider_id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text     NOT NULL UNIQUE CHECK (name <> ''),
    adjustment  text     NOT NULL DEFAULT 'raw' CHECK (adjustment IN ('raw', 'split', 'split_div'))
);

COMMENT ON TABLE sources IS 'A provider and the feed that it serves; rows come on demand, ids are for our tables only.';

CREATE TABLE symbols (
    symbol_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    as_of     timestamptz NOT NULL
);

CREATE TABLE symbol_names (
    symbol_id  integer     NOT NULL REFERENCES symbols,
    name       text        NOT NULL CHECK (name <> '' AND name = btrim(name)),
    valid_from timestamptz NOT NULL,
    valid_to   timestamptz NOT NULL CHECK (valid_to >= valid_from),
    as_of      timestamptz NOT NULL,
    PRIMARY KEY (name, symbol_id, valid_from, as_of)
);

COMMENT ON TABLE symbol_names IS
    'Names in force over [valid_from, valid_to), append-only: the newest as_of of (name, symbol_id, valid_from) '
    'counts; an empty validity takes a name back.';

CREATE INDEX symbol_names_by_symbol ON symbol_names (symbol_id);

CREATE TABLE universe_versions (
    version  integer     PRIMARY KEY,
    as_of    timestamptz NOT NULL,
    origin   text        NOT NULL,
    note     text        NOT NULL DEFAULT '',
    checksum text        NOT NULL
);

CREATE TABLE symbol_universe (
    symbol_id integer     NOT NULL REFERENCES symbols,
    version   integer     NOT NULL REFERENCES universe_versions,
    tier      text        NOT NULL CHECK (tier IN ('T0', 'T1', 'T2')),
    calendar  text        NOT NULL,
    exchange  text        NOT NULL DEFAULT '',
    active    boolean     NOT NULL DEFAULT true,
    as_of     timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, version)
);

COMMENT ON TABLE symbol_universe IS 'Append-only: the newest version of a symbol counts; a version holds only what changed.';

CREATE TABLE calendar_versions (
    calendar    text        NOT NULL,
    version     integer     NOT NULL,
    known_from  date        NOT NULL,
    known_until date        NOT NULL CHECK (known_until >= known_from),
    checksum    text        NOT NULL,
    as_of       timestamptz NOT NULL,
    PRIMARY KEY (calendar, version)
);

CREATE TABLE calendar_sessions (
    calendar text            NOT NULL,
    version  integer         NOT NULL,
    session  date            NOT NULL,
    open_at  timestamptz     NOT NULL,
    close_at timestamptz     NOT NULL CHECK (close_at > open_at),
    hours    tstzmultirange  NOT NULL CHECK (NOT isempty(hours)),
    PRIMARY KEY (calendar, version, session),
    FOREIGN KEY (calendar, version) REFERENCES calendar_versions
);

CREATE TABLE calendar_overrides (
    override_id bigint         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text           NOT NULL CHECK (kind IN ('closed', 'hours', 'halt', 'cancel')),
    calendar    text,
    symbol_id   integer        REFERENCES symbols,
    session     date,
    hours       tstzmultirange,
    cancels     bigint         REFERENCES calendar_overrides,
    who         text           NOT NULL,
    reason      text           NOT NULL,
    as_of       timestamptz    NOT NULL,
    CHECK (CASE kind
        WHEN 'closed' THEN calendar IS NOT NULL AND session IS NOT NULL AND hours IS NULL
        WHEN 'hours'  THEN calendar IS NOT NULL AND session IS NOT NULL AND NOT isempty(hours)
        WHEN 'halt'   THEN (calendar IS NOT NULL OR symbol_id IS NOT NULL) AND NOT isempty(hours)
        ELSE cancels IS NOT NULL END)
);

COMMENT ON TABLE calendar_overrides IS
    'What the published arrays do not know. closed, hours: one session of a calendar; halt: no trading in hours, '
    'of a symbol or of a whole calendar; cancel: takes an earlier row back.';

CREATE TABLE source_rank (
    capability text        NOT NULL,
    as_of      timestamptz NOT NULL,
    rank       smallint    NOT NULL,
    position   smallint    NOT NULL,
    provider   text        NOT NULL,
    PRIMARY KEY (capability, as_of, position)
);

COMMENT ON TABLE source_rank IS
    'Which source wins: all rows of the newest as_of at or before T. rank is the band, position breaks ties in it.';

CREATE TABLE provider_switches (
    switch_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider  text        NOT NULL,
    enabled   boolean     NOT NULL,
    until     timestamptz,
    who       text        NOT NULL,
    reason    text        NOT NULL,
    as_of     timestamptz NOT NULL
);

COMMENT ON TABLE provider_switches IS 'The operator''s switch, append-only: the newest row of a provider counts, until its end.';

CREATE TABLE corporate_actions (
    symbol_id   integer          NOT NULL REFERENCES symbols,
    action      text             NOT NULL CHECK (action IN ('split', 'dividend', 'rename', 'listing', 'delisting')),
    ex_date     date             NOT NULL,
    provider_id smallint         NOT NULL REFERENCES sources,
    as_of       timestamptz      NOT NULL,
    asked_at    timestamptz      NOT NULL,
    ratio       double precision,
    amount      double precision,
    currency    text,
    withdrawn   boolean          NOT NULL DEFAULT false,
    detail      jsonb            NOT NULL DEFAULT '{}',
    PRIMARY KEY (symbol_id, action, ex_date, provider_id, as_of)
);

COMMENT ON COLUMN corporate_actions.ratio IS 'Split: new shares for one old share.';
COMMENT ON COLUMN corporate_actions.amount IS 'Dividend: cash for one share, in currency.';

-- Names as known at an instant; NULL asks for every name.
CREATE FUNCTION gapless_names(names text[], known_by timestamptz)
RETURNS TABLE (symbol_id integer, name text, valid_from timestamptz, valid_to timestamptz)
LANGUAGE sql STABLE AS $$
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

-- Every source with its place in a capability's policy as known at an instant; unranked ones come last.
CREATE FUNCTION gapless_ranks(capability text, known_by timestamptz)
RETURNS TABLE (provider_id smallint, provider text, place smallint)
LANGUAGE sql STABLE AS $$
    SELECT s.provider_id, s.name, coalesce(r.position, 32767::smallint)
    FROM sources s
    LEFT JOIN source_rank r
        ON r.provider = s.name
        AND r.capability = gapless_ranks.capability
        AND r.as_of = (SELECT max(x.as_of) FROM source_rank x
                       WHERE x.capability = gapless_ranks.capability AND x.as_of <= gapless_ranks.known_by)
$$;

-- The universe now: newest version of each symbol under the name in force.
CREATE VIEW universe AS
SELECT u.symbol_id, n.name AS symbol, u.tier, u.calendar, u.exchange, u.active, u.version, u.as_of
FROM (
    SELECT DISTINCT ON (s.symbol_id) s.*
    FROM symbol_universe s
    ORDER BY s.symbol_id DESC, s.version DESC
) u
JOIN gapless_names(NULL, 'infinity') n ON n.symbol_id = u.symbol_id
-- OFFSET keeps the clock out of the per-row conditions.
JOIN (SELECT gapless_now() AS market_now OFFSET 0) c ON n.valid_from <= c.market_now AND n.valid_to > c.market_now;

-- Overrides in force now.
CREATE VIEW calendar_overrides_now AS
SELECT o.override_id, o.kind, o.calendar, o.symbol_id, o.session, o.hours, o.who, o.reason, o.as_of
FROM calendar_overrides o
WHERE o.kind <> 'cancel'
  AND NOT EXISTS (SELECT 1 FROM calendar_overrides c WHERE c.cancels = o.override_id);
