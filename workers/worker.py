"""The queue worker: RQ's bookkeeping, batches in threads, recovery in seconds.

Unlike RQ's own workers it does not fork, so that connections and sessions stay warm, and it runs
several batches at once. A slot is taken before a job is, so no job waits in a process that is busy.
What a killed worker leaves behind is found by any other within ``recovery.LEASE_S``.
"""

import logging
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rq import Queue, SimpleWorker
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.utils import now as rq_now
from rq.worker.base import WorkerStatus
from rq.worker_registration import register

from core.clock import Clock
from core.errors import GaplessError
from core.log import mask
from workers.known_jobs import Functions, KnownJob
from workers.orphans import Orphans
from workers.queues import SILENCE_S
from workers.recovery import LEASE_S, Recovery
from workers.stopping import HandedBackError, Stop
from workers.watch import WOUND_EVERY_S, Watch

log = logging.getLogger(__name__)

_POLL_S = 0.5
"""Longest sleep in Redis; also how soon the loop notices a wish to stop."""
_HOUSEKEEPING_S = 2.0
_SILENT_S = 5.0
"""Real seconds without a round of housekeeping after which others may not have been able to vouch either."""
_ORPHANS_S = 30.0
_BACKOFF_MAX_S = 2.0
_HEALTHY_S = 30.0
_OVERRUN_S = 120.0
"""Real seconds beyond its time limit after which a batch counts as hanging: its deadline, its last call
and its last write are over long before."""


class _NoDeathPenalty(BaseDeathPenalty):
    """RQ's alarms work in the main thread only; our batches end by their own deadline."""

    def setup_death_penalty(self) -> None:
        """Nothing to arm."""

    def cancel_death_penalty(self) -> None:
        """Nothing to disarm."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A batch in hand."""

    job: Job
    execution: Execution
    since: float
    """Monotonic seconds at which it was begun."""


class BatchWorker(SimpleWorker):
    """Takes jobs from one queue and runs a few of them at once, each in a thread of its own."""

    death_penalty_class = _NoDeathPenalty

    def __init__(
        self,
        queue: str,
        functions: Functions,
        redis: Redis,
        clock: Clock,
        stop: Stop,
        *,
        slots: int,
        overrun_s: float = _OVERRUN_S,
        on_death: Mapping[str, Callable[[object, str], object]] | None = None,
    ) -> None:
        """Prepare; Redis has to be reachable.

        Args:
            queue: Name of the one queue: RQ's reliable take (BLMOVE) exists for one queue only.
            functions: What a job may call, by wire name; nothing is imported by a name from Redis.
            redis: A client with bytes replies.
            clock: For its monotonic seconds and for waiting.
            stop: The process's wish to stop.
            slots: Batches at once.
            overrun_s: Real seconds beyond its time limit after which a batch counts as hanging.
            on_death: Told of what a job carried when its worker died, and a word for that death, by
                wire name.
        """
        # RQ keeps "the execution" on the worker; here each thread has its own.
        self._here = threading.local()
        cast("Any", super()).__init__(
            [Queue(queue, connection=redis, serializer=JSONSerializer)],
            # A container started again has the same host name and process id as the one that died.
            name=f"{queue.replace(':', '-')}-{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=int(LEASE_S),
        )
        # RQ sets its logger to INFO at import, whatever the application wants.
        self.log.setLevel(logging.WARNING)
        self._queue = self.queues[0]
        self._functions = functions
        self._on_death = on_death or {}
        self._clock = clock
        self._stop = stop
        self._slots = threading.BoundedSemaphore(slots)
        self._capacity = slots
        self._guard = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._running: dict[str, _Held] = {}
        self._untold: list[tuple[str, str]] = []
        self._kept_house = clock.monotonic()
        # Redis may have come back this very moment.
        self._judges_from = self._kept_house + _SILENT_S
        self._overrun_s = overrun_s
        self._recovery = Recovery(self._queue, redis, clock, self._give_up, self._died)
        self._orphans = Orphans(queue, redis, self._give_up)
        self._beat = clock.monotonic()
        self._lost_since: float | None = None
        self._watch = Watch()
        self._over = False

    # What RQ asks for.

    @property
    def execution(self) -> Execution | None:
        """RQ's record of the job that this thread runs."""
        return getattr(self._here, "execution", None)

    @execution.setter
    def execution(self, value: Execution | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - RQ: an attribute
        self._here.execution = value

    @property
    def dequeue_timeout(self) -> int:
        """Whole seconds of sleep in Redis, from which RQ derives the socket's time limit."""
        return 1

    @property
    def connection_timeout(self) -> int:
        """Real seconds after which a silent Redis counts as lost."""
        return int(SILENCE_S)

    def get_heartbeat_ttl(self, job: Job) -> int:  # noqa: ARG002 - RQ's signature
        """Seconds until a silent job counts as lost; the housekeeper renews it."""
        return int(LEASE_S)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Say once and in one line what went wrong; a traceback only for what nobody foresaw."""
        error = self._here.error = exc_info[1]
        if isinstance(error, HandedBackError):
            log.info("job handed back", extra={"job": job.id})
        elif (reason := _reason(error)) is not None:
            log.warning("job failed: %s", reason, extra={"job": job.id})
        else:
            log.error("job failed", extra={"job": job.id}, exc_info=exc_info)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
    ) -> None:
        """Hand back, try again or put aside with the reason, as the error says."""
        error = getattr(self._here, "error", None)
        if isinstance(error, HandedBackError) and self.execution is not None:
            self._recovery.hand_back(job.id, self.execution.composite_key)
            self._here.execution = None
            return
        exc_string = _reason(error) or exc_string
        if error is not None and not _may_pass(error):
            job.retries_left = 0
        cast("Any", super()).handle_job_failure(job, queue, started_job_registry, exc_string)

    # The loop.

    def run(self, *, burst: bool = False) -> bool:
        """Work until asked to stop, or with ``burst`` until queue and hands are empty.

        Returns:
            True when every job in hand was finished or handed back by its own thread; False when
            threads still hang in a call: their jobs were handed back, leave with ``os._exit``.
        """
        # The housekeeper puts us on RQ's list, and again whenever Redis has forgotten it.
        self.birth_date = rq_now()
        self._beside("housekeeper", self._keep_house, _HOUSEKEEPING_S)
        self._beside("watch", self._watch.wind, WOUND_EVERY_S)
        # In a thread of its own: a walk over a large Redis may take longer than a job's lease.
        self._beside("orphans", self._orphans.run, _ORPHANS_S)
        backoff = 0.1
        try:
            while not self._stop.requested:
                self._beat = self._clock.monotonic()
                if not self._slots.acquire(timeout=_POLL_S):
                    continue
                job_id = None
                try:
                    job_id = self._take(wait=not burst)
                    self._found()
                    backoff = 0.1
                except RedisError as error:
                    self._lost(error)
                    self._stop.wait(backoff)
                    backoff = min(backoff * 2, _BACKOFF_MAX_S)
                if job_id is not None and not self._stop.requested:
                    self._begin(job_id)
                    continue
                self._slots.release()
                if job_id is not None:
                    # The wish to stop came while we slept in Redis.
                    self._recovery.put_back(job_id)
                    break
                if burst and self._lost_since is None:
                    if not self._threads:
                        break
                    self._clock.sleep(0.01)
            return self._drain()
        finally:
            self._over = True
            self._sign_off()
            self._watch.stop()

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether the loop turns, and what it sees; a lost Redis alone is no reason to restart."""
        now = self._clock.monotonic()
        lost = self._lost_since
        return now - self._beat < _HEALTHY_S, {
            "queue": self._queue.name,
            "running": len(self._running),
            "redis": "reachable" if lost is None else f"lost for {now - lost:.0f} s",
        }

    def _take(self, *, wait: bool) -> str | None:
        source, target = self._queue.key, self._queue.intermediate_queue_key
        redis = cast("Any", self.connection)
        taken = redis.blmove(source, target, _POLL_S) if wait else redis.lmove(source, target)
        if taken is None:
            return None
        try:
            return taken.decode()
        except UnicodeDecodeError:
            redis.lrem(target, 1, taken)
            log.warning("queue entry dropped, it is no job id: %r", taken)
            return None

    def _begin(self, job_id: str) -> None:
        thread = threading.Thread(target=self._work, args=(job_id,), name=job_id, daemon=True)
        with self._guard:
            self._threads.add(thread)
        thread.start()

    def _work(self, job_id: str) -> None:
        """One job, start to end; the last resort for every error."""
        key = uuid.uuid4().hex
        execution = None
        try:
            job = self._fetch(job_id)
            if job is not None:
                execution = self.prepare_execution(job)
                self._recovery.vouch([execution.composite_key])
                with self._guard:
                    self._running[key] = _Held(job, execution, self._clock.monotonic())
                self.perform_job(job, self._queue)
        except RedisError as error:
            log.warning("job handed back: Redis was lost: %s", error, extra={"job": job_id})
            if execution is not None:
                with self._guard:
                    self._untold.append((job_id, execution.composite_key))
        except Exception:
            log.exception("job left to recovery", extra={"job": job_id})
        finally:
            with self._guard:
                self._running.pop(key, None)
                self._threads.discard(threading.current_thread())
            self._slots.release()

    def _fetch(self, job_id: str) -> Job | None:
        try:
            return KnownJob.read(job_id, self.connection, self._functions)
        except NoSuchJobError:
            # FLUSHALL, or the hint grew too old: the database derives the work again.
            self._recovery.forget_taken(job_id)
            return None
        except (ValueError, ResponseError) as error:
            self._recovery.put_aside(job_id, f"the job in Redis can't be read: {error}")
            return None

    def _died(self, job_id: str, execution: str) -> None:
        """Tell whoever wants to know; a job of another version says nothing that we understand."""
        try:
            job = KnownJob.read(job_id, self.connection, self._functions)
            told = self._on_death.get(job.func_name or "")
            if told is not None:
                told(cast("Any", job).args[0], execution)
        except (
            GaplessError,
            NoSuchJobError,
            DeserializationError,
            LookupError,
            ValueError,
        ) as error:
            log.warning("a death that says nothing: %s", error, extra={"job": job_id})

    def _give_up(self, job_id: str, reason: str) -> None:
        job = KnownJob.read(job_id, self.connection, self._functions)
        log.error("job put aside: %s", reason, extra={"job": job_id})
        job.retries_left = 0
        cast("Any", super()).handle_job_failure(job, self._queue, exc_string=reason)

    # What goes on beside the jobs.

    def _beside(self, name: str, chore: Callable[[], None], every_s: float) -> None:
        """Do a chore now and then, in a thread of its own, for as long as the loop turns."""

        def again() -> None:
            while not self._over:
                try:
                    chore()
                except RedisError as error:
                    log.debug("%s: %s", name, error)
                except Exception:
                    # Without the housekeeper every batch of this process would soon count as lost.
                    log.exception("%s failed", name)
                waited = 0.0
                while waited < every_s and not self._over:
                    self._clock.sleep(0.25)
                    waited += 0.25

        threading.Thread(target=again, name=name, daemon=True).start()

    def _keep_house(self) -> None:
        """Vouch for running jobs, recover lost ones, stay in RQ's list of workers."""
        self._vouch()
        now = self._clock.monotonic()
        if now - self._kept_house > _SILENT_S:
            # Redis was away, or we stood still. The others must get to vouch for theirs first.
            self._judges_from = now + _SILENT_S
        self._kept_house = now
        self._hand_back_untold()
        self._recovery.run(judge=now >= self._judges_from)

    def _hand_back_untold(self) -> None:
        """Jobs whose end could not be told run again; that was no death and spends no retry."""
        with self._guard:
            untold = list(self._untold)
        for job_id, execution in untold:
            self._recovery.hand_back(job_id, execution)
            with self._guard:
                self._untold.remove((job_id, execution))

    def _vouch(self) -> None:
        with self._guard:
            held = list(self._running.values())
        hanging = [one for one in held if self._hangs(one)]
        if hanging and not self._stop.requested:
            # A thread can't be ended from outside. Whoever supervises us starts another process.
            for one in hanging:
                log.error("batch hangs, so the process ends", extra={"job": one.job.id})
            self._stop.request()
        alive = [one for one in held if one not in hanging]
        with cast("Any", self.connection).pipeline() as pipe:
            for one in alive:
                registry = one.job.started_job_registry
                one.execution.heartbeat(registry, int(LEASE_S), pipeline=pipe)
            self._recovery.vouch([one.execution.composite_key for one in alive], pipe)
            # Written whole each time, so that a FLUSHALL costs the listing a few seconds.
            self.last_heartbeat = rq_now()
            pipe.hset(self.key, mapping={**cast("Any", self).serialize(), "state": self._word()})
            pipe.expire(self.key, int(LEASE_S) + 60)
            register(self, pipe)
            pipe.execute()

    def _hangs(self, one: _Held) -> bool:
        return self._clock.monotonic() - one.since > (one.job.timeout or 0) + self._overrun_s

    def _word(self) -> str:
        return (WorkerStatus.BUSY if self._running else WorkerStatus.IDLE).value

    def _lost(self, error: RedisError) -> None:
        if self._lost_since is None:
            self._lost_since = self._clock.monotonic()
            log.warning("Redis is lost, trying until it is back: %s", error)

    def _found(self) -> None:
        if self._lost_since is not None:
            lost_s = self._clock.monotonic() - self._lost_since
            self._lost_since = None
            log.info("Redis is back after %.1f s", lost_s)

    def _drain(self) -> bool:
        """Wait for the batches in hand; hand back what hangs beyond the grace."""
        while self._threads and self._stop.remaining_s() > 0:
            self._clock.sleep(0.02)
        with self._guard:
            left = list(self._running.values())
            clean = not self._threads
        for one in left:
            if self._hangs(one):
                # Left to recovery, which counts it as a death: it must not hang one worker after the other.
                continue
            with suppress(RedisError):
                self._recovery.hand_back(one.job.id, one.execution.composite_key)
                log.warning("hanging job handed back", extra={"job": one.job.id})
        return clean

    def _sign_off(self) -> None:
        with suppress(RedisError):
            self.register_death()


def _reason(error: object) -> str | None:
    """One line for what was foreseen, None for what needs its traceback."""
    if isinstance(error, GaplessError):
        return mask(f"{error.code}: {error}")
    return "bad_job: its payload is not JSON" if isinstance(error, DeserializationError) else None


def _may_pass(error: BaseException) -> bool:
    """Whether starting the job again can help."""
    if isinstance(error, GaplessError):
        return error.retryable
    return not isinstance(error, (DeserializationError, LookupError, TypeError, ValueError))
