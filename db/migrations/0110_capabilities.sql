-- What the fleet's sources can do: whoever routes calls says so, whoever judges gaps reads it.
-- locks: creates new objects only; waits for nobody.

CREATE TABLE source_capabilities (
    provider   text             NOT NULL CHECK (provider <> ''),
    capability text             NOT NULL CHECK (capability IN ('bars_1m', 'bars_eod', 'quotes_l1', 'options_chain')),
    eligible   boolean          NOT NULL,
    reason     text             NOT NULL DEFAULT '',
    settle_s   double precision CHECK (settle_s >= 0),
    as_of      timestamptz      NOT NULL,
    PRIMARY KEY (provider, capability, as_of)
);

COMMENT ON TABLE source_capabilities IS
    'Append-only: the newest row of (provider, capability) counts. eligible: installed, configured and entitled, '
    'whatever its health now; reason says why not. settle_s: how long after its end a bar may still change.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON source_capabilities
    FOR EACH ROW EXECUTE FUNCTION gapless_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON source_capabilities
    FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();
