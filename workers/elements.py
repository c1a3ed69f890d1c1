"""Reads what the coordinator pushes: bytes to a checked element, or the reason why not. Pure.

The published contract is the JSON Schema in ``docs/contracts``; a test holds that both judge alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

import orjson
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from core.errors import BadJobError
from core.windows import Window
from core.words import Interval, Tier
from workers.queues import Kind

_INTERVALS = {"1m": "bars_1m", "1d": "bars_eod"}


def _instant(value: object) -> object:
    """ISO 8601 text with a zone; pydantic by itself would take numbers and bare dates as well."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(cast("str", value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{value!r} is no time; expected ISO 8601 with Z or an offset") from error
    if instant.tzinfo is None:
        raise ValueError(f"time {value!r} has no zone; expected Z or an offset")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"time {value!r} lies beyond what a calendar holds") from error


def _word(value: object) -> object:
    """An id may be a whole number; it is kept as text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _tier(value: object) -> object:
    """A priority may be a number: 0 is T0."""
    return f"T{value}" if type(value) is int and value in (0, 1, 2) else value


_Time = Annotated[datetime, BeforeValidator(_instant)]
_Symbol = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]{1,32}$", strict=True)]


class _Document(BaseModel):
    """The element as it stands in JSON; unknown fields are ignored here and kept in the inbox."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    v: Literal[1] = 1
    id: Annotated[str, BeforeValidator(_word), Field(min_length=1, max_length=200)] | None = None
    type: Literal["bars_1m", "bars_eod", "quotes_l1"]
    symbols: Annotated[
        tuple[_Symbol, ...],
        Field(min_length=1, max_length=1000),
        AfterValidator(lambda symbols: tuple(dict.fromkeys(symbols))),
    ]
    tier: Annotated[Literal["T0", "T1", "T2"], BeforeValidator(_tier)] | None = Field(
        default=None, validation_alias=AliasChoices("tier", "priority")
    )
    provider: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    start: _Time | None = None
    end: _Time | None = None
    not_after: _Time | None = None

    @model_validator(mode="before")
    @classmethod
    def _synonyms(cls, document: dict[str, Any]) -> dict[str, Any]:
        fields = dict(document)
        if "symbols" not in fields and "symbol" in fields:
            fields["symbols"] = [fields["symbol"]]
        interval = fields.get("interval")
        if interval is not None:
            kind = _INTERVALS.get(interval) if isinstance(interval, str) else None
            if kind is None:
                raise ValueError(f"interval {interval!r} is not collected; expected 1m or 1d")
            if fields.setdefault("type", kind) != kind:
                raise ValueError(f"interval {interval} and type {fields['type']!r} disagree")
        return fields

    @model_validator(mode="after")
    def _whole(self) -> "_Document":
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end come together or not at all")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"window ends at {self.end}, not after its start {self.start}")
        return self


@dataclass(frozen=True, slots=True)
class Element:
    """What one element asks for."""

    id: str | None
    kind: Kind
    symbols: tuple[str, ...]
    tier: Tier | None
    provider: str | None
    window: Window | None
    """None for quotes, and for bars of the current slot."""
    not_after: datetime | None

    @property
    def interval(self) -> Interval | None:
        """Of the bars; None for quotes."""
        return self.kind.capability.interval


@dataclass(frozen=True, slots=True)
class Reading:
    """An element as far as it can be read."""

    document: Mapping[str, Any] | None
    """The decoded object, unknown fields included; None where it is none."""
    id: str | None
    element: Element | None
    problem: str | None
    """Why nobody can execute it; exactly one of element and problem is there."""


def read(raw: bytes) -> Reading:
    """Decode and check one element; never raises."""
    try:
        decoded: Any = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return Reading(None, None, None, f"is not JSON: {error}")
    if not isinstance(decoded, dict):
        return Reading(None, None, None, f"is {type(decoded).__name__}; expected one JSON object")
    document = cast("dict[str, Any]", decoded)
    try:
        return Reading(document, _id(document), parse(document), None)
    except BadJobError as error:
        return Reading(document, _id(document), None, str(error))


def parse(document: Mapping[str, Any]) -> Element:
    """Check a decoded element.

    Raises:
        BadJobError: with every problem of it.
    """
    try:
        checked = _Document.model_validate(dict(document))
    except ValidationError as error:
        problems = (
            ".".join(str(part) for part in problem["loc"])
            + (": " if problem["loc"] else "")
            + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise BadJobError("; ".join(problems)) from error
    kind = Kind(checked.type)
    window = None
    if kind is not Kind.QUOTES_L1 and checked.start is not None and checked.end is not None:
        window = Window(checked.start, checked.end)
    return Element(
        checked.id,
        kind,
        checked.symbols,
        None if checked.tier is None else Tier(checked.tier),
        checked.provider,
        window,
        checked.not_after,
    )


def _id(document: Mapping[str, Any]) -> str | None:
    value = _word(document.get("id"))
    return value if isinstance(value, str) and 0 < len(value) <= 200 else None
