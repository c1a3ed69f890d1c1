"""The queues and what travels on them: names, job ids, payloads, and an enqueue that may run twice.

The scheduler and ``ops`` import this module and nothing else of ``workers``. Names and payloads are
a wire format between versions that run side by side during a deploy: tests pin them.

Redis holds hints. A job carries a deterministic id; pushing it again while it is queued, running,
freshly finished or put aside is refused by the script below, so a resend or a second leader is
harmless.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError
from redis.retry import Retry as BackoffRetry
from rq import Retry
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from core.errors import BadJobError, QueueError
from core.windows import Window
from core.words import Capability, Tier

VERSION: Final = 1
"""Version of the payloads; a worker puts a job of another version aside with the reason."""

COLLECT_FUNCTION: Final = "workers.jobs.collect"
BACKFILL_FUNCTION: Final = "workers.jobs.backfill"

RESULT_TTL_S: Final = 60
"""Real seconds for which a finished job's id stays taken."""
FAILURE_TTL_S: Final = 86_400
"""Real seconds for which a job that was put aside can be looked at."""
HINT_TTL_S: Final = 6 * 3600
"""Real seconds after which a job that nobody took is forgotten; the database derives it again."""
DEATHS_TO_DOUBT: Final = 2
"""Deaths in a row of its batches from which on a symbol is asked alone."""
DEATHS_ON_TRIAL: Final = 2
"""Trials that ended in a death, after which a symbol is left out."""
RETRIES: Final = DEATHS_TO_DOUBT + DEATHS_ON_TRIAL
"""How often RQ starts a job again after a death or an error that may pass: once more than it takes to
find the symbol that it dies of."""
SILENCE_S: Final = 4.0
"""Real seconds after which a Redis that does not answer counts as lost."""
HEARD_S: Final = 30.0
"""Real seconds after which a worker that was not heard of counts as gone; it beats every 2."""
BACKFILL_TIMEOUT_S: Final = 180
"""Real seconds that a batch of backfill rows may take; rows not reached by then are handed back."""

_ENQUEUE = """
-- KEYS: 1 = rq:job:<id>, 2 = rq:queue:<name>, 3 = rq:queues
-- ARGV: 1 = job id, 2 = seconds until an untaken job is forgotten, then field, value, field ...
-- Answers 1 when pushed, 0 when a job of this id is known already.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('SADD', KEYS[3], KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[1])
return 1
"""
_PER_ROUND_TRIP = 500
_MARK = "gapless:remembers"

_Wire = TypeVar("_Wire")
_Utc = Annotated[AwareDatetime, AfterValidator(lambda instant: instant.astimezone(UTC))]
_Name = Annotated[str, Field(min_length=1)]


class Kind(StrEnum):
    """What a collect job asks for."""

    BARS_1M = "bars_1m"
    QUOTES_L1 = "quotes_l1"
    BARS_EOD = "bars_eod"
    REREAD = "reread"
    """A session's 1m bars once more from the source that supplied them: restatements."""

    @property
    def capability(self) -> Capability:
        """What a source must be able to do to answer it."""
        return Capability.BARS_1M if self is Kind.REREAD else Capability(self.value)

    @property
    def timeout_s(self) -> int:
        """Real seconds that a batch may take; the rest is left to the gap pass."""
        return 60 if self in (Kind.BARS_1M, Kind.QUOTES_L1) else 600


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectJob:
    """A batch of symbols of one tier and kind, asked for in one go."""

    kind: Kind
    tier: Tier
    slot: _Utc
    """The cadence slot that it serves, market time; part of the id."""
    symbols: tuple[_Name, ...]
    """In the order in which they are asked, at least one."""
    not_after: _Utc
    """Market time after which it is dropped as stale."""
    start: _Utc | None = None
    """Start of the window, inclusive; None for quotes."""
    end: _Utc | None = None
    """End of the window, exclusive; None for quotes."""
    provider: _Name | None = None
    """A reread is pinned to it; for the others a hint that ALLOW_SOURCE_OVERRIDE permits."""
    inbox: dict[int, tuple[_Name, ...]] | None = None
    """The coordinator's elements that it answers: row -> symbols that the row still wants."""
    phase: int = 0
    """Which part of the cadence the slot belongs to, when load is spread."""
    part: int = 0
    """Number of the batch within the slot."""
    push: str = ""
    """Word that tells two pushes of the same elements apart."""

    def __post_init__(self) -> None:
        if not self.symbols:
            raise BadJobError(
                f"{self.kind} job of {self.tier} has no symbols; expected at least one"
            )
        if self.kind is not Kind.QUOTES_L1:
            _ = self.window

    @property
    def window(self) -> Window:
        """``[start, end)``.

        Raises:
            BadJobError: there is none, or it is empty.
        """
        if self.start is None or self.end is None or self.end <= self.start:
            raise BadJobError(
                f"{self.kind} job of {self.tier} has the window {self.start} - {self.end}; "
                "expected a start before an end"
            )
        return Window(self.start, self.end)

    @property
    def queue(self) -> str:
        """Name of the RQ queue that it belongs on."""
        return collect_queue(self.tier)

    @property
    def id(self) -> str:
        """Deterministic; RQ allows letters, digits, ``_`` and ``-``."""
        words = ["c", self.kind.value, self.tier.value, str(int(self.slot.timestamp()))]
        words += [str(self.phase), str(self.part)]
        if self.provider is not None:
            words.append(self.provider)
        if self.inbox:
            words.append(f"i{min(self.inbox)}")
        if self.push:
            words.append(self.push)
        return "-".join(re.sub(r"[^A-Za-z0-9_]", "_", word) for word in words)

    def to_wire(self) -> dict[str, Any]:
        """The one argument of the job function, plain JSON."""
        return {"v": VERSION, **_COLLECT.dump_python(self, mode="json")}

    @classmethod
    def from_wire(cls, payload: object) -> "CollectJob":
        """Read a payload; unknown fields are ignored.

        Raises:
            BadJobError: another version, an unknown kind, a missing or impossible field.
        """
        return _read(payload, "collect", _COLLECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillJob:
    """Rows of ``backfill_jobs`` to be claimed and answered."""

    tier: Tier
    ids: tuple[int, ...]
    push: int
    """Grows with each dispatch, so that a row that was handed back can be pushed again."""

    def __post_init__(self) -> None:
        if not self.ids:
            raise BadJobError(f"backfill job of {self.tier} has no ids; expected at least one row")

    @property
    def queue(self) -> str:
        """Name of the RQ queue that it belongs on."""
        return backfill_queue(self.tier)

    @property
    def id(self) -> str:
        """Deterministic: the digest of the row ids and the push number."""
        digest = hashlib.blake2b(",".join(map(str, self.ids)).encode(), digest_size=12).hexdigest()
        return f"b-{self.tier.value}-{digest}-{self.push}"

    def to_wire(self) -> dict[str, Any]:
        """The one argument of the job function, plain JSON."""
        return {"v": VERSION, **_BACKFILL.dump_python(self, mode="json")}

    @classmethod
    def from_wire(cls, payload: object) -> "BackfillJob":
        """Read a payload; unknown fields are ignored.

        Raises:
            BadJobError: another version, a missing or impossible field.
        """
        return _read(payload, "backfill", _BACKFILL)


_COLLECT = TypeAdapter(CollectJob)
_BACKFILL = TypeAdapter(BackfillJob)


def collect_queue(tier: Tier) -> str:
    """Name of the queue of a tier's live batches."""
    return f"collect:{tier.value}"


def backfill_queue(tier: Tier) -> str:
    """Name of the queue of a tier's backfill batches."""
    return f"backfill:{tier.value}"


QUEUES: Final = tuple(name(tier) for name in (collect_queue, backfill_queue) for tier in Tier)


def connect(url: str) -> Redis:
    """A client as queues need it: bytes, and a few seconds of patience before QueueError's causes.

    A command is sent again when its reply was lost, so everything sent here may run twice.
    """
    return cast("Any", Redis).from_url(
        url,
        socket_timeout=SILENCE_S,
        socket_connect_timeout=2.0,
        socket_keepalive=True,
        retry=BackoffRetry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 2),
    )


def enqueue_collect(redis: Redis, jobs: Sequence[CollectJob]) -> int:
    """Push collect jobs, each at most once by id; returns how many were new.

    Raises:
        QueueError: Redis can't be used; what was pushed stays pushed, so call again with the same.
    """
    return _enqueue(redis, [(job, COLLECT_FUNCTION, job.kind.timeout_s) for job in jobs])


def enqueue_backfill(redis: Redis, jobs: Sequence[BackfillJob]) -> int:
    """Push backfill jobs, each at most once by id; returns how many were new.

    Raises:
        QueueError: Redis can't be used; what was pushed stays pushed, so call again with the same.
    """
    return _enqueue(redis, [(job, BACKFILL_FUNCTION, BACKFILL_TIMEOUT_S) for job in jobs])


def depths(redis: Redis) -> dict[str, int]:
    """Jobs waiting in each of our queues, by its name.

    Raises:
        QueueError: Redis can't be used.
    """
    try:
        with cast("Any", redis).pipeline(transaction=False) as pipe:
            for name in QUEUES:
                pipe.llen(f"rq:queue:{name}")
            return dict(zip(QUEUES, pipe.execute(), strict=True))
    except RedisError as error:
        raise QueueError(f"can't read the lengths of the queues from Redis: {error}") from error


def remembers(redis: Redis) -> bool:
    """Whether Redis still has what ``remind`` put there: False where it forgot everything.

    Raises:
        QueueError: Redis can't be used.
    """
    try:
        return bool(cast("Any", redis).exists(_MARK))
    except RedisError as error:
        raise QueueError(f"can't ask Redis what it remembers: {error}") from error


def remind(redis: Redis) -> None:
    """Put a mark that is lost with the jobs.

    Raises:
        QueueError: Redis can't be used.
    """
    try:
        cast("Any", redis).set(_MARK, "1")
    except RedisError as error:
        raise QueueError(f"can't mark Redis: {error}") from error


def working(redis: Redis) -> dict[str, int]:
    """Live workers of each of our queues, by its name: those that were heard of lately.

    Raises:
        QueueError: Redis can't be used.
    """
    try:
        seconds, _microseconds = cast("Any", redis).time()
        found: dict[str, int] = {}
        for name in QUEUES:
            keys = cast("Any", redis).smembers(f"rq:workers:{name}")
            beats = [cast("Any", redis).hget(key, "last_heartbeat") for key in keys]
            found[name] = sum(
                seconds - datetime.fromisoformat(beat.decode()).timestamp() < HEARD_S
                for beat in beats
                if beat is not None
            )
    except RedisError as error:
        raise QueueError(f"can't read the list of workers from Redis: {error}") from error
    return found


def _enqueue(redis: Redis, jobs: Sequence[tuple[CollectJob | BackfillJob, str, int]]) -> int:
    script = redis.register_script(_ENQUEUE)
    pushed = 0
    try:
        for start in range(0, len(jobs), _PER_ROUND_TRIP):
            with cast("Any", redis).pipeline(transaction=False) as pipe:
                for job, function, timeout_s in jobs[start : start + _PER_ROUND_TRIP]:
                    hash_key, fields = _rq_hash(redis, job, function, timeout_s)
                    script(
                        keys=[hash_key, f"rq:queue:{job.queue}", "rq:queues"],
                        args=[job.id, HINT_TTL_S, *fields],
                        client=pipe,
                    )
                pushed += sum(pipe.execute())
    except RedisError as error:
        raise QueueError(f"can't push jobs to Redis: {error}") from error
    return pushed


def _rq_hash(
    redis: Redis, job: CollectJob | BackfillJob, function: str, timeout_s: int
) -> tuple[str, list[Any]]:
    """The key and the fields, flat, exactly as RQ's own enqueue would store them."""
    rq_job = cast("Any", Job).create(
        function,
        args=(job.to_wire(),),
        connection=redis,
        id=job.id,
        origin=job.queue,
        status=JobStatus.QUEUED,
        description=job.id,
        timeout=timeout_s,
        result_ttl=RESULT_TTL_S,
        failure_ttl=FAILURE_TTL_S,
        retry=Retry(max=RETRIES),
        serializer=JSONSerializer,
    )
    rq_job.enqueued_at = rq_job.created_at
    return rq_job.key, [part for field in rq_job.to_dict().items() for part in field]


def _read(payload: object, function: str, adapter: TypeAdapter[_Wire]) -> _Wire:
    if not isinstance(payload, dict):
        raise BadJobError(f"{function} job carries {type(payload).__name__}, not one JSON object")
    fields = cast("dict[str, object]", payload)
    if fields.get("v") != VERSION:
        raise BadJobError(
            f"{function} job has version {fields.get('v')!r} and this worker speaks {VERSION}; "
            "upgrade the workers before the scheduler, then requeue it"
        )
    try:
        return adapter.validate_python(fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise BadJobError(f"{function} job can't be read: {problems}") from error
