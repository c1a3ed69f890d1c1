"""What Alpha Vantage's refusals mean: the words decide, because nearly all come with status 200."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.errors import (
    AuthRejectedError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderError,
    ProviderUnavailableError,
    QuotaExhaustedError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.log import mask
from providers.alphavantage.pages import subject
from providers.base import Call, Raw, retry_after_s

_SPOKEN = ("Error Message", "Information", "Note")
"""Names under which a refusal speaks, instead of the data."""
_DAY_USED_UP = "detected your api key as"
_SOON = ("per second", "per minute", "spreading out", "call frequency")
_BURST_S = 1.1
"""Market seconds after which a request comes no longer too soon after another one."""


def refusal(
    call: Call, raw: Raw, fields: Mapping[str, Any], key: str, now: datetime
) -> ProviderError | None:
    """The error that a reply with a good status stands for, None where it has data.

    The order of the questions matters: the words for a burst name the daily limit and the paid
    plans as well.

    Args:
        call: What was asked, for the message.
        raw: The reply.
        fields: Its document.
        key: Ours, which the daily limit's words repeat; taken out of the message.
        now: Market time, for a Retry-After that is a date.
    """
    text = next((str(fields[name]) for name in _SPOKEN if name in fields), "")
    if not text:
        return None
    message, words = _message(call, raw, text, key), text.lower()
    if "apikey is invalid or missing" in words:
        return AuthRejectedError(f"{message}; check ALPHA_VANTAGE_API_KEY")
    if "is a premium" in words or "entitlement" in words:
        return NotEntitledError(
            f"{message}; the key's plan lacks it: set ALPHA_VANTAGE_PLAN to what it is"
        )
    wait_s = retry_after_s(raw.headers, now)
    soon = any(word in words for word in _SOON)
    if _DAY_USED_UP in words or ("per day" in words and not soon):
        return QuotaExhaustedError(message, retry_after_s=wait_s)
    if soon or "rate limit" in words:
        burst = "per second" in words and "per minute" not in words
        return RateLimitedError(message, retry_after_s=wait_s or (_BURST_S if burst else None))
    if "invalid api call" in words:
        # Our parameters are valid by making, so that it is the symbol, or a month without it.
        return SymbolNotFoundError(message)
    return MalformedPayloadError(message)


def bad_status(call: Call, raw: Raw, key: str, now: datetime) -> ProviderError:
    """The error of a reply with another status, which comes from what stands before the vendor."""
    message = _message(call, raw, raw.body[:300].decode("utf-8", "replace"), key)
    if raw.status == 429:
        return RateLimitedError(message, retry_after_s=retry_after_s(raw.headers, now))
    if raw.status in {401, 403}:
        return AuthRejectedError(f"{message}; check ALPHA_VANTAGE_API_KEY")
    hint = "; check ALPHA_VANTAGE_BASE_URL" if raw.status < 500 else ""
    return ProviderUnavailableError(message + hint, status=raw.status)


def _message(call: Call, raw: Raw, text: str, key: str) -> str:
    plain = mask(" ".join(text.split())).replace(key, "***")[:300]
    return f"{subject(call)}: Alpha Vantage answered {raw.status}, {plain}"
