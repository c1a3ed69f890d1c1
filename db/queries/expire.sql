-- name: expire
SELECT gapless_expire(%(kind)s, make_interval(days => %(days)s), %(rows)s)
