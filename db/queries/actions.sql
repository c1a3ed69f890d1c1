-- name: add
INSERT INTO corporate_actions (symbol_id, action, ex_date, provider_id, as_of, asked_at, ratio, amount, currency)
SELECT %(symbol_id)s, %(action)s, %(ex_date)s, %(provider_id)s, %(as_of)s, %(asked_at)s, w.ratio, w.amount, w.currency
FROM (SELECT %(ratio)s::float8 AS ratio, %(amount)s::float8 AS amount, %(currency)s::text AS currency) w
WHERE NOT EXISTS (
    SELECT 1
    FROM (SELECT c.* FROM corporate_actions c
          WHERE c.symbol_id = %(symbol_id)s AND c.action = %(action)s AND c.ex_date = %(ex_date)s
            AND c.provider_id = %(provider_id)s
          ORDER BY c.as_of DESC LIMIT 1) n
    WHERE NOT n.withdrawn
      AND (n.ratio, n.amount, n.currency) IS NOT DISTINCT FROM (w.ratio, w.amount, w.currency))

-- name: known
SELECT s.name, n.symbol_id, n.action, n.ex_date, n.asked_at, n.ratio, n.amount, n.currency
FROM (
    SELECT DISTINCT ON (c.action, c.ex_date, c.provider_id) c.*
    FROM corporate_actions c
    WHERE c.symbol_id = %(symbol_id)s AND c.as_of <= coalesce(%(as_of)s::timestamptz, 'infinity')
    ORDER BY c.action, c.ex_date, c.provider_id, c.as_of DESC
) n
JOIN sources s ON s.provider_id = n.provider_id
WHERE NOT n.withdrawn
ORDER BY n.ex_date, n.action, s.name
