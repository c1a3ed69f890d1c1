-- The settings that the whole fleet shares, as versions: every process takes on the newest within a second or two.
-- locks: creates new objects only; waits for nobody.

CREATE TABLE settings_versions (
    version      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content      jsonb       NOT NULL CHECK (jsonb_typeof(content) = 'object'),
    who          text        NOT NULL CHECK (who <> ''),
    as_of        timestamptz NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE settings_versions IS
    'Append-only: the newest version is in force. content: setting -> text, as the settings file has it, of those settings '
    'that are no secret and no address; a setting that it lacks has its default. as_of is market time, published_at the '
    'server''s own, with which the date of a settings file is compared.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON settings_versions
    FOR EACH ROW EXECUTE FUNCTION gapless_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON settings_versions
    FOR EACH STATEMENT EXECUTE FUNCTION gapless_append_only();
