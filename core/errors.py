"""The one hierarchy of errors.

Policy travels as data: ``retryable`` tells whether asking again can help, ``counts_against_health``
whether the provider is to blame. Workers and the breaker read these, never a list of classes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar


class GaplessError(Exception):
    """Something went wrong in a way that we know."""

    retryable: ClassVar[bool] = False
    counts_against_health: ClassVar[bool] = False
    code: ClassVar[str] = "error"
    """Short constant word for metric labels and evidence."""


class UsageError(GaplessError):
    """The caller asked for something impossible; the message says what was expected and the mend."""

    code = "usage"


class SettingsError(UsageError):
    """Settings are invalid; the message lists every problem."""

    code = "settings"


class UnknownSymbolError(UsageError):
    """A symbol that the universe does not know."""

    code = "unknown_symbol"


class StorageError(GaplessError):
    """The database can't be used as it is."""

    retryable = True
    code = "storage"


class MigrationError(StorageError):
    """The schema can't be brought to this version."""

    retryable = False
    code = "migration"


class ClockMismatchError(StorageError):
    """The database belongs to another market clock than this process."""

    retryable = False
    code = "clock_mismatch"


class HorizonError(UsageError):
    """A read asked for knowledge that open writes can still change."""

    code = "beyond_horizon"


class LeaseLostError(GaplessError):
    """Somebody else holds the lease now; stop what was done under it."""

    code = "lease_lost"


class QueueError(GaplessError):
    """Redis can't be used right now."""

    retryable = True
    code = "queue"


class BadJobError(GaplessError):
    """A job or coordinator element that nobody can execute; it goes to the dead list with this reason."""

    code = "bad_job"


class DeadlineExceededError(GaplessError):
    """The time for this piece of work is over; what was not reached is reported as not done."""

    retryable = True
    code = "deadline"


class ProviderError(GaplessError):
    """A provider did not give what was asked."""

    retryable = True
    counts_against_health = True
    code = "provider"


class ProviderUnavailableError(ProviderError):
    """Refused, reset, unresolvable or 5xx."""

    code = "unavailable"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ProviderTimeoutError(ProviderError):
    """No complete answer within the call's time limit."""

    code = "timeout"


class MalformedPayloadError(ProviderError):
    """An answer that is not what the protocol says."""

    code = "malformed"


class BadDataError(ProviderError):
    """A well-formed answer whose content can't be true: stale, incomplete or broken prices."""

    code = "bad_data"


class RateLimitedError(ProviderError):
    """The provider asks us to slow down: backpressure, not failure."""

    counts_against_health = False
    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Market seconds that the provider asked us to wait, None when it did not say."""


class QuotaExhaustedError(RateLimitedError):
    """A long window (a day, a month) is used up; nothing helps until it resets."""

    code = "quota"


class AuthRejectedError(ProviderError):
    """The key is missing, wrong or expired: opens the breaker at once with its own reason."""

    retryable = False
    code = "auth"


class NotEntitledError(ProviderError):
    """The plan does not include this: the capability is off, the breaker is untouched."""

    retryable = False
    counts_against_health = False
    code = "not_entitled"


class SymbolNotFoundError(ProviderError):
    """The provider does not know the symbol."""

    retryable = False
    counts_against_health = False
    code = "not_found"


class BadRequestError(ProviderError):
    """The provider refuses the question itself: a window beyond its look-back, a bad parameter."""

    retryable = False
    counts_against_health = False
    code = "bad_request"


class NoRouteError(GaplessError):
    """No source can take the call now; ``refusals`` says why for each."""

    retryable = True
    code = "no_route"

    def __init__(
        self, capability: str, refusals: Mapping[str, str], *, retry_at: datetime | None = None
    ) -> None:
        reasons = "; ".join(f"{source}: {reason}" for source, reason in refusals.items())
        super().__init__(f"no source for {capability}: {reasons or 'the policy names none'}")
        self.capability = capability
        self.refusals = dict(refusals)
        self.retry_at = retry_at
        """Market time at which a budget frees, None when waiting alone does not help."""
