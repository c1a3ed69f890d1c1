"""Whether the live tiers' minutes are explained; only to know how long to wait, the judge looks for itself."""

from typing import LiteralString

from chaos.world import World
from sim.check.truth import Admin, read_truth

_STORED: LiteralString = """
SELECT n.name, extract(epoch FROM c.ts)::bigint
FROM candles_intraday c JOIN symbol_names n USING (symbol_id)
WHERE c.interval_s = 60 AND c.ts >= %(start)s AND c.ts < %(end)s AND c.status IN (1, 2)
"""
_EXPLAINED: LiteralString = """
SELECT n.name, extract(epoch FROM lower(r))::bigint, extract(epoch FROM upper(r))::bigint
FROM ingestion_cursor c JOIN symbol_names n USING (symbol_id), LATERAL unnest(c.covered) AS r
WHERE c.interval_s = 60
"""
_UNEXPLAINED: LiteralString = """
SELECT count(*) FROM universe u
CROSS JOIN generate_series(%(start)s, %(end)s - interval '1 minute', interval '1 minute') AS m(ts)
WHERE u.active AND u.tier IN ('T0', 'T1')
  AND NOT EXISTS (SELECT FROM candles_intraday c
                  WHERE c.symbol_id = u.symbol_id AND c.interval_s = 60 AND c.ts = m.ts AND c.status IN (1, 2))
  AND NOT EXISTS (SELECT FROM confirmed_empty e
                  WHERE e.symbol_id = u.symbol_id AND e.interval_s = 60 AND e.start_ts <= m.ts AND e.end_ts > m.ts)
"""


class Healing:
    """Counts down the live bars that traded and are neither stored nor covered, then all unexplained minutes.

    Args:
        world: Its market is over.
    """

    def __init__(self, world: World) -> None:
        self._db = world.db
        start, end = world.times.open, world.times.close
        self._window = {"start": start, "end": end}
        live = {*world.tiers.get("T0", ()), *world.tiers.get("T1", ())}
        truth = read_truth(Admin(world.sim_admin), "1m", start.timestamp(), end.timestamp())
        self._wanted = {
            key for key, bar in truth.items() if bar.versions and bar.expected and key[0] in live
        }

    @property
    def left(self) -> int:
        """How many have not come, when last looked."""
        return len(self._wanted)

    def __call__(self) -> bool:
        """Whether every one of them has come."""
        if self._wanted:
            with self._db.transaction() as conn:
                stored = set(conn.execute(_STORED, self._window).fetchall())
                covered = conn.execute(_EXPLAINED).fetchall()
            self._wanted -= stored
            for symbol, start, end in covered:
                self._wanted -= {
                    key for key in self._wanted if key[0] == symbol and start <= key[1] < end
                }
        return not self._wanted

    def unexplained(self) -> int:
        """Minutes that have no bar and are not confirmed to have none: they are, or will be, work."""
        with self._db.transaction() as conn:
            row = conn.execute(_UNEXPLAINED, self._window).fetchone()
        return 0 if row is None else int(row[0])
