"""Reads decoded JSON by name and collects every problem in place of stopping at the first."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, cast

from core.errors import SettingsError

_CLOCK_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")


class Reader:
    """One JSON object, its place in the document, and the problems of the whole document."""

    def __init__(self, values: Mapping[str, Any], place: str, problems: list[str]) -> None:
        self._values = values
        self._place = place
        self._seen: set[str] = set()
        self.problems = problems

    @classmethod
    def root(cls, raw: object, what: str) -> "Reader":
        """Start a document; raises ``SettingsError`` when it is no JSON object."""
        if not isinstance(raw, dict):
            raise SettingsError(f"{what} is {type(raw).__name__}; expected a JSON object")
        return cls(cast(dict[str, Any], raw), "", [])

    def problem(self, name: str, text: str) -> None:
        """Note a problem of one value."""
        self.problems.append(f"{self._path(name)} {text}")

    def has(self, name: str) -> bool:
        """Whether the value is given and not null."""
        return self._values.get(name) is not None

    def names(self) -> list[str]:
        """The names in this object, in the document's order."""
        self._seen.update(self._values)
        return list(self._values)

    def raw(self, name: str) -> Any:
        """The value as decoded, None where absent."""
        self._seen.add(name)
        return self._values.get(name)

    def finish(self) -> None:
        """Note every name that nobody asked for."""
        for name in self._values:
            if name not in self._seen:
                known = ", ".join(sorted(self._seen)) or "nothing"
                self.problem(name, f"is unknown here; known: {known}")

    def text(self, name: str, default: str) -> str:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str) or not value:
            self.problem(name, f"is {value!r}; expected text")
            return default
        return value

    def optional_text(self, name: str) -> str | None:
        return self.text(name, "") or None if self.has(name) else self.raw(name)

    def word(self, name: str, default: str, words: Sequence[str]) -> str:
        value = self.text(name, default)
        if value not in words:
            self.problem(name, f"is {value!r}; expected one of {', '.join(words)}")
            return default if default in words else words[0]
        return value

    def words(self, name: str, words: Sequence[str], *, default: Sequence[str]) -> list[str]:
        if not self.has(name):
            self.raw(name)
            return list(default)
        found: list[str] = []
        for place, item in self.items(name):
            if item in words:
                found.append(item)
            else:
                self.problem(place, f"is {item!r}; expected one of {', '.join(words)}")
        return found

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(name, f"is {value!r}; expected true or false")
            return default
        return value

    def number(
        self, name: str, default: float, *, low: float | None = None, high: float | None = None
    ) -> float:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.problem(name, f"is {value!r}; expected a number")
            return default
        if (low is not None and value < low) or (high is not None and value > high):
            self.problem(name, f"is {value}; expected {_bounds(low, high)}")
            return default
        return float(value)

    def optional_number(self, name: str, *, low: float | None = None) -> float | None:
        return (
            self.number(name, 0.0 if low is None else low, low=low)
            if self.has(name)
            else self.raw(name)
        )

    def integer(
        self, name: str, default: int, *, low: int | None = None, high: int | None = None
    ) -> int:
        value = self.number(name, float(default), low=low, high=high)
        if value != int(value):
            self.problem(name, f"is {value}; expected a whole number")
            return default
        return int(value)

    def share(self, name: str, default: float) -> float:
        return self.number(name, default, low=0.0, high=1.0)

    def pair(self, name: str, default: tuple[int, int]) -> tuple[int, int]:
        value = self.raw(name)
        if value is None:
            return default
        items = cast(list[Any], value) if isinstance(value, list) else []
        if (
            len(items) != 2
            or not all(isinstance(x, int) for x in items)
            or not 0 <= items[0] <= items[1]
        ):
            self.problem(
                name, f"is {value!r}; expected [low, high], whole numbers, 0 <= low <= high"
            )
            return default
        return items[0], items[1]

    def day(self, name: str, *, required: bool = False) -> date | None:
        value = self.raw(name)
        if value is None:
            return None
        try:
            return date.fromisoformat(value)
        except (TypeError, ValueError):
            self.problem(name, f"is {value!r}; expected a date YYYY-MM-DD")
            return date.min if required else None

    def moment(self, name: str, default: str) -> str:
        """``HH:MM[:SS]`` (UTC of the session), an ISO instant with an offset, or ``now``."""
        value = self.text(name, default)
        if value == "now" or _CLOCK_TIME.fullmatch(value):
            return value
        try:
            aware = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            aware = False
        if not aware:
            self.problem(
                name, f"is {value!r}; expected HH:MM (UTC of the session) or an ISO instant with Z"
            )
            return default
        return value

    def path(self, name: str) -> Path | None:
        value = self.optional_text(name)
        return Path(value) if value else None

    def section(self, name: str) -> "Reader":
        """The object under ``name``, empty where absent."""
        return self.mapping(name, default={})

    def mapping(self, name: str, *, default: Mapping[str, Any]) -> "Reader":
        """The object under ``name``, or ``default`` where absent."""
        value = self.raw(name)
        if value is not None and not isinstance(value, dict):
            self.problem(name, f"is {value!r}; expected an object")
            value = None
        given = default if value is None else cast(dict[str, Any], value)
        return Reader(given, self._path(name), self.problems)

    def child(self, name: str) -> "Reader":
        """The object under ``name`` of a mapping; null counts as empty."""
        return self.mapping(name, default={})

    def items(self, name: str) -> Iterator[tuple[str, Any]]:
        """The items of the list under ``name`` with their places."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, list):
            self.problem(name, f"is {value!r}; expected a list")
            return
        for number, item in enumerate(cast(list[Any], value)):
            yield f"{name}[{number}]", item

    def sections(self, name: str, *, required: Sequence[str] = ()) -> "Iterator[Reader]":
        """The objects of the list under ``name``; the caller reads them, unknown names are noted after."""
        for place, item in self.items(name):
            if not isinstance(item, dict):
                self.problem(place, f"is {item!r}; expected an object")
                continue
            child = Reader(cast(dict[str, Any], item), self._path(place), self.problems)
            absent = [word for word in required if not child.has(word)]
            for word in absent:
                child.problem(word, "is absent")
            if absent:
                continue
            yield child
            child.finish()

    def _path(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name


def _bounds(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
