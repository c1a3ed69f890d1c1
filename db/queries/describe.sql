-- name: types
SELECT format(E'CREATE TYPE %s AS (\n%s\n);', t.typname,
              string_agg(format('    %I %s', a.attname, format_type(a.atttypid, a.atttypmod)), E',\n' ORDER BY a.attnum))
FROM pg_type t
JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE t.typnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
GROUP BY t.typname
ORDER BY t.typname

-- name: tables
-- NOT NULL is shown with its column: as a constraint of its own it is new in PostgreSQL 18.
SELECT format(E'CREATE TABLE %s (\n%s\n)%s;%s', c.relname,
    (SELECT string_agg(line, E',\n' ORDER BY place, line COLLATE "C") FROM (
        SELECT a.attnum AS place, format('    %I %s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                CASE WHEN a.attidentity <> '' THEN ' GENERATED ALWAYS AS IDENTITY' ELSE '' END,
                CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
                coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')) AS line
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT 10000, '    ' || pg_get_constraintdef(k.oid)
        FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'c', 'f')
    ) x),
    coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', ''),
    coalesce((SELECT string_agg(format(E'\n-- %s%s: %s', c.relname, coalesce('.' || a.attname, ''), m.description), ''
                                ORDER BY m.objsubid)
              FROM pg_description m LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = m.objsubid AND m.objsubid > 0
              WHERE m.objoid = c.oid AND m.classoid = 'pg_class'::regclass), ''))
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname

-- name: indexes
-- Those that no constraint made.
SELECT replace(pg_get_indexdef(i.indexrelid), ' public.', ' ') || ';'
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
JOIN pg_class x ON x.oid = i.indexrelid
WHERE NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)
ORDER BY x.relname

-- name: triggers
SELECT regexp_replace(pg_get_triggerdef(t.oid), ' public\.', ' ', 'g') || ';'
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace = 'public'::regnamespace
WHERE NOT t.tgisinternal
ORDER BY c.relname, t.tgname

-- name: functions
-- Bodies as they were written; the clauses around them by hand, because their text differs between versions.
SELECT format(E'CREATE FUNCTION %s(%s) RETURNS %s LANGUAGE %s%s%s%s AS $$%s$$;%s', p.proname,
    pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), l.lanname,
    CASE p.provolatile WHEN 'i' THEN ' IMMUTABLE' WHEN 's' THEN ' STABLE' ELSE ' VOLATILE' END,
    CASE WHEN p.prosecdef THEN ' SECURITY DEFINER' ELSE '' END,
    coalesce(' SET ' || array_to_string(p.proconfig, ' SET '), ''), p.prosrc,
    coalesce(E'\n-- ' || obj_description(p.oid, 'pg_proc'), ''))
FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY p.proname, pg_get_function_arguments(p.oid) COLLATE "C"

-- name: views
-- Columns and meaning; how a server prints a query differs between versions, and the migrations have the text.
SELECT format(E'CREATE VIEW %s (%s);%s', c.relname,
    (SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
    coalesce(E'\n-- ' || obj_description(c.oid, 'pg_class'), ''))
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v'
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname
