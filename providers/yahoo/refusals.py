"""What Yahoo's statuses mean, in the words of core.errors."""

from datetime import datetime

from core.errors import (
    AuthRejectedError,
    BadRequestError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from providers.base import Call, Raw, retry_after_s
from providers.yahoo.document import stated_error, subject

_NO_DATA = "Data doesn't exist for startDate"


def refusal(call: Call, raw: Raw, now: datetime) -> ProviderError | None:
    """The error that a reply's status stands for, None for a reply that can be parsed.

    Args:
        call: What was asked, for the message.
        raw: The reply.
        now: Market time, for a Retry-After that is a date.
    """
    status = raw.status
    if status == 200 or is_no_data(raw):
        return None
    code, text = stated_error(raw.body)
    message = f"{subject(call)}: Yahoo answered {status}{f', {text}' if text else ''}"
    if status == 429:
        return RateLimitedError(message, retry_after_s=retry_after_s(raw.headers, now))
    if status in {401, 403}:
        return AuthRejectedError(message)
    if status == 404 and code:
        return SymbolNotFoundError(message)
    if 400 <= status < 500 and status not in {404, 408}:
        return BadRequestError(message)
    # A 404 without Yahoo's envelope is no word about the symbol: the base URL leads elsewhere.
    hint = "; check YAHOO_BASE_URL" if status == 404 or 300 <= status < 400 else ""
    return ProviderUnavailableError(message + hint, status=status)


def is_no_data(raw: Raw) -> bool:
    """True for the 400 by which Yahoo says that a window holds nothing: an answer, no refusal."""
    return raw.status == 400 and _NO_DATA in stated_error(raw.body)[1]
