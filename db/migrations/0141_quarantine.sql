-- Recent refusals are shown by source, and old ones leave by the time of the ask.
-- locks: quarantine SHARE while the index is built; it holds days, not years.

CREATE INDEX quarantine_asked_at ON quarantine (asked_at);
