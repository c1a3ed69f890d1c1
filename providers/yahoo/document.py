"""Yahoo's JSON documents: opening one, walking it without trusting its shape, its stated error."""

import re
from typing import Any, cast

import orjson

from core.errors import MalformedPayloadError, RateLimitedError
from core.log import mask
from providers.base import Call, Raw

_ENVELOPES = ("chart", "quoteResponse", "finance", "quoteSummary")
_THROTTLED = re.compile(rb"too many requests", re.IGNORECASE)
_SHOWN = 200


def subject(call: Call) -> str:
    """What was asked, short: source, endpoint, up to three symbols, window."""
    names = ", ".join(call.symbols[:3]) + (", ..." if len(call.symbols) > 3 else "")
    return f"{call.source} {call.endpoint} {names}{f' {call.window}' if call.window else ''}"


def opened(call: Call, raw: Raw) -> object:
    """The document of a reply with a good status.

    Raises:
        RateLimitedError: it is Yahoo's plain-text throttle under a good status.
        MalformedPayloadError: it is not JSON, or an error envelope.
    """
    try:
        document: object = orjson.loads(raw.body)
    except orjson.JSONDecodeError as error:
        if len(raw.body) < 4096 and _THROTTLED.search(raw.body):
            raise RateLimitedError(f"{subject(call)}: Yahoo throttles under status 200") from error
        raise MalformedPayloadError(
            f"{subject(call)}: the reply of {len(raw.body)} bytes is not JSON: {error}"
        ) from error
    code, text = _error_of(document)
    if code:
        raise MalformedPayloadError(f"{subject(call)}: Yahoo answered 200 with the error {text!r}")
    return document


def mapping_at(node: object, *path: str | int) -> dict[str, Any] | None:
    """The object at the end of a path of keys and indexes, None where the document differs."""
    found = _at(node, path)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def list_at(node: object, *path: str | int) -> list[Any] | None:
    """The list at the end of a path of keys and indexes, None where the document differs."""
    found = _at(node, path)
    return cast("list[Any]", found) if isinstance(found, list) else None


def stated_error(body: bytes) -> tuple[str, str]:
    """Code and description of an error reply; code is empty where Yahoo's envelope is missing."""
    try:
        return _error_of(orjson.loads(body))
    except orjson.JSONDecodeError:
        is_plain = body.lstrip()[:1] not in {b"<", b"{", b"["}
        return "", _shown(body.decode("utf-8", "replace")) if is_plain else ""


def _error_of(document: object) -> tuple[str, str]:
    for name in _ENVELOPES:
        stated = mapping_at(document, name, "error")
        if stated is not None:
            code, text = str(stated.get("code") or ""), str(stated.get("description") or "")
            return code or "error", _shown(text or code)
    return "", ""


def _at(node: object, path: tuple[str | int, ...]) -> object:
    for step in path:
        if isinstance(step, str) and isinstance(node, dict):
            node = cast("dict[str, object]", node).get(step)
        elif (
            isinstance(step, int)
            and isinstance(node, list)
            and step < len(cast("list[object]", node))
        ):
            node = cast("list[object]", node)[step]
        else:
            return None
    return node


def _shown(text: str) -> str:
    return mask(" ".join(text.split()))[:_SHOWN]
