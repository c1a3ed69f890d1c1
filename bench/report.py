"""What a bench found: a table for people and one flat JSON object for programs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.output import table

Value = str | int | float | bool | None

_COLUMNS = ("figure", "value", "limit or peer", "ratio", "aim", "met")


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound that a figure has to keep."""

    sign: str
    """``>=``, ``<=`` or ``==``."""
    bound: float

    def met(self, value: float) -> bool:
        match self.sign:
            case ">=":
                return value >= self.bound
            case "<=":
                return value <= self.bound
            case _:
                return value == self.bound

    def __str__(self) -> str:
        return f"{self.sign} {number(self.bound)}"


def at_least(bound: float) -> Aim:
    """The figure should not be smaller."""
    return Aim(">=", bound)


def at_most(bound: float) -> Aim:
    """The figure should not be larger."""
    return Aim("<=", bound)


def exactly(bound: float) -> Aim:
    """The figure must be this, usually 0."""
    return Aim("==", bound)


@dataclass(slots=True)
class Report:
    """Collects figures in the order in which they were measured."""

    values: dict[str, Value] = field(default_factory=dict[str, Value])
    """The JSON object: flat, one key a figure."""
    missed: list[str] = field(default_factory=list[str])
    """Keys whose aim was not met."""
    _rows: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    _notes: list[str] = field(default_factory=list[str])

    def number(
        self, key: str, what: str, value: float, unit: str = "", aim: Aim | None = None
    ) -> None:
        """A figure that stands alone."""
        self.values[key] = _rounded(value)
        self._row(key, what, f"{number(value)} {unit}".rstrip(), "", None, aim, value)

    def ratio(
        self,
        key: str,
        what: str,
        ours: float,
        peer: float,
        unit: str,
        aim: Aim | None = None,
        **more: Value,
    ) -> None:
        """A figure against its limit or peer, measured in the same unit; the key holds ours / peer.

        Args:
            key: Of the ratio; both sides are kept beside it as ``<stem>_<unit>``.
            what: For people.
            ours: Our figure.
            peer: The limit's or the peer's.
            unit: Of both, such as ``rows/s`` or ``ms``.
            aim: What the ratio has to keep.
            more: Further keys.
        """
        ratio = ours / peer
        stem, word = key.removesuffix("_ratio"), unit.replace("/", "_per_")
        self.values |= {
            key: _rounded(ratio),
            f"{stem}_{word}": _rounded(ours),
            f"{stem}_peer_{word}": _rounded(peer),
            **more,
        }
        self._row(key, what, f"{number(ours)} {unit}", f"{number(peer)} {unit}", ratio, aim, ratio)

    def absent(self, key: str, why: str) -> None:
        """A figure that can't be had here; its key is null."""
        self.values[key] = None
        self._notes.append(f"{key}: {why}")

    def failed(self, measure: str, why: str) -> None:
        """A measure that could not be made: what it should have found is missing, and that is no pass."""
        self.missed.append(measure)
        self._notes.append(f"FAILED {measure}: {why}")

    def note(self, text: str) -> None:
        """A sentence that the reader of the table needs."""
        self._notes.append(text)

    def _row(
        self,
        key: str,
        what: str,
        value: str,
        peer: str,
        ratio: float | None,
        aim: Aim | None,
        judged: float,
    ) -> None:
        met = aim is None or aim.met(judged)
        if not met:
            self.missed.append(key)
        cells = (
            what,
            value,
            peer,
            "" if ratio is None else f"{ratio:.2f}",
            "" if aim is None else str(aim),
            "" if aim is None else "yes" if met else "NO",
        )
        self._rows.append(dict(zip(_COLUMNS, cells, strict=True)))

    def show(self, title: str, facts: Mapping[str, Value]) -> None:
        """Print the table with the facts that make it worth anything."""
        print(f"\n{title}")
        print("  ".join(f"{name}: {value}" for name, value in facts.items()))
        print()
        table(self._rows, _COLUMNS)
        if self._notes:
            print()
        for note in self._notes:
            print(f"- {note}")

    def save(self, path: Path, facts: Mapping[str, Value]) -> None:
        """Write the flat JSON object; facts that a figure has not are added."""
        path.write_text(json.dumps({**facts, **self.values}, indent=2) + "\n")


def number(value: float) -> str:
    """Digits that matter: thousands separated, three significant places below a hundred."""
    if isinstance(value, int) or float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")
