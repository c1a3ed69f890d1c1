-- name: newest
SELECT v.version, v.checksum FROM calendar_versions v
WHERE v.calendar = %(calendar)s ORDER BY v.version DESC LIMIT 1

-- name: add_version
INSERT INTO calendar_versions (calendar, version, known_from, known_until, checksum, as_of)
VALUES (%(calendar)s, %(version)s, %(known_from)s, %(known_until)s, %(checksum)s, %(as_of)s)

-- name: add_sessions
INSERT INTO calendar_sessions (calendar, version, session, open_at, close_at, hours)
SELECT %(calendar)s, %(version)s, u.session, u.open_at, u.close_at, u.hours::tstzmultirange
FROM unnest(%(labels)s::date[], %(opens)s::timestamptz[], %(closes)s::timestamptz[], %(hours)s::text[])
    AS u(session, open_at, close_at, hours)

-- name: can_override
SELECT %(calendar)s::text IS NULL
           OR EXISTS (SELECT 1 FROM calendar_versions v WHERE v.calendar = %(calendar)s::text),
       %(cancels)s::int8 IS NULL
           OR EXISTS (SELECT 1 FROM calendar_overrides o WHERE o.override_id = %(cancels)s::int8)

-- name: add_override
INSERT INTO calendar_overrides (kind, calendar, symbol_id, session, hours, cancels, who, reason, as_of)
VALUES (%(kind)s, %(calendar)s, %(symbol_id)s, %(session)s, %(hours)s::text::tstzmultirange, %(cancels)s, %(who)s,
        %(reason)s, %(as_of)s)
RETURNING override_id

-- name: versions
-- Publications and overrides both only ever add up.
SELECT v.calendar, max(v.version)
    + (SELECT count(*)::int FROM calendar_overrides o LEFT JOIN calendar_overrides c ON c.override_id = o.cancels
       WHERE v.calendar IN (o.calendar, c.calendar))
FROM calendar_versions v
GROUP BY v.calendar

-- name: headers
SELECT DISTINCT ON (v.calendar) v.calendar, v.version, v.known_from, v.known_until
FROM calendar_versions v
WHERE %(names)s::text[] IS NULL OR v.calendar = ANY (%(names)s::text[])
ORDER BY v.calendar DESC, v.version DESC

-- name: sessions
-- Sessions of the newest version of each calendar.
SELECT s.calendar, s.session, s.hours
FROM calendar_sessions s
WHERE (%(names)s::text[] IS NULL OR s.calendar = ANY (%(names)s::text[]))
  AND s.version = (SELECT max(v.version) FROM calendar_versions v WHERE v.calendar = s.calendar)

-- name: overrides
-- Overrides of whole calendars in force, oldest first: a later one of the same session counts.
SELECT o.kind, o.calendar, o.session, o.hours
FROM calendar_overrides_now o
WHERE o.calendar = ANY (%(names)s::text[]) AND o.symbol_id IS NULL
ORDER BY o.override_id
