"""The scheduler's own numbers, each with its unit; what an operator tunes is a setting."""

from datetime import timedelta

ASK_OFFSET = timedelta(seconds=2)
"""Market time between a minute's close and the ask: sources publish a bar a moment after its
end."""

SETTLE_1M = timedelta(seconds=60)
"""How long a 1m bar may still change where no source has published its own figure."""

SETTLE_1D = timedelta(minutes=30)
"""The same for a daily bar, from the session's close; also when the session is read again."""

GAP_GRACE = timedelta(seconds=30)
"""Market time that a live answer gets beyond settle and cadence before its absence is a gap."""

DAILY_SPREAD = timedelta(minutes=10)
"""The end-of-day work of a session falls due evenly over this long; back-pressure stretches it."""

DAILY_CATCH_UP = timedelta(hours=24)
"""End-of-day work that nobody pushed is still pushed this long after it fell due."""

DAILY_ANSWER = timedelta(minutes=5)
"""Market time after the last end-of-day push before a missing daily bar is judged a gap."""

DAILY_PATIENCE = timedelta(hours=6)
"""Market time after a close when missing daily bars are judged even if the sweep never finished."""

MISSED_LOOK_BACK = timedelta(hours=1)
"""A new leader counts the live slots that fell due up to this long before it came."""

FIRST_LOOK_BACK = timedelta(seconds=60)
"""The first sweep of a database pushes what fell due this long before it, while it is fresh."""

GAP_HORIZON_SESSIONS = 5
"""Newest sessions of each calendar that the gap pass judges; older holes are an operator's
backfill."""

GAP_OVERLAP = timedelta(minutes=10)
"""The frequent gap pass judges again this much of what it judged before."""

GAP_EVERY_MARKET_S = 30.0
GAP_EVERY_REAL_S = 0.5
"""The frequent gap pass runs when both have passed since the last one began."""

GAP_FULL_EVERY = timedelta(minutes=5)
GAP_FULL_EVERY_REAL_S = 10.0
"""Market time and real seconds between two passes over the whole horizon, at least both."""

GAP_DUTY = 10.0
GAP_LONGEST_REST_S = 10.0
"""A gap pass comes this many times as long after the last as the quickest of the newest passes took, so many
real seconds at most: one pass through a slow database is no reason to leave gaps unseen for minutes."""

GAP_REAL_S = 2.0
"""Real seconds that a live answer gets at least, where a replay makes cadence and grace shorter."""

GAP_STRETCH = timedelta(hours=2)
"""A waiting row takes in neighbours until its window is this long."""

DOUBT_JOIN = timedelta(minutes=30)
"""Minutes that a source has said to lack, closer than this, are asked for a second time together."""

DOUBT_WAIT_ONE = timedelta(minutes=15)
"""Market time before the only eligible source is asked again for what it lacked: sooner, its second
answer would confirm nothing."""

DOUBT_WAIT_MANY = timedelta(minutes=5)
"""The same where another source can be asked; long enough to ask for several minutes at once."""

LIVE_STALE_REAL_S = 3.0
"""Real seconds that live bars may wait in a queue, where a replay makes the cadence shorter than
that."""

QUOTE_STALE_REAL_S = 1.5
"""The same for quotes, which the next ask replaces."""

BEHIND_REAL_S = 3.0
"""Real seconds of queued live work that are no backlog, however fast the replay."""

DAILY_IN_QUEUE_REAL_S = 300.0
"""Real seconds after its push for which a daily job may still wait in its queue; where Redis forgets
it meanwhile, it is pushed again."""

HANGS_AFTER_S = 60.0
"""Real seconds that a step of the lease, the sweep or the dispatch may take."""

LEASE_NAME = "scheduler"
LEASE_TTL_S = 3.0
"""Real seconds for which a leader that is silent still counts as alive."""
