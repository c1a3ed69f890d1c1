"""What the coordinator may push: the code and the published JSON Schema judge alike."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referencing import Registry, Resource

from core.windows import Window
from core.words import Tier
from workers.elements import read
from workers.queues import Kind

CONTRACTS = Path(__file__).resolve().parents[2] / "docs" / "contracts"
SCHEMAS = {
    path.name: json.loads(path.read_text()) for path in sorted(CONTRACTS.glob("*.schema.json"))
}
REGISTRY: Registry = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        SCHEMAS[name],
        registry=REGISTRY,
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )


JOB = validator("coordinator-job.schema.json")

FULL: dict[str, Any] = {
    "v": 1,
    "id": "rlc-17",
    "type": "bars_1m",
    "symbols": ["AAPL", "MSFT"],
    "tier": "T0",
    "provider": "finnhub",
    "start": "2024-03-05T14:30:00Z",
    "end": "2024-03-05T15:00:00Z",
    "not_after": "2024-03-05T15:10:00Z",
}

BAD: dict[str, dict[str, Any]] = {
    "no type": {"symbols": ["A"]},
    "no symbol": {"type": "bars_1m"},
    "empty symbols": {"type": "bars_1m", "symbols": []},
    "symbols as text": {"type": "bars_1m", "symbols": "AAPL"},
    "a symbol that is a number": {"type": "bars_1m", "symbols": ["A", 7]},
    "a symbol with a blank": {"type": "bars_1m", "symbols": ["A B"]},
    "a symbol with a control character": {"type": "bars_1m", "symbols": ["A\x00B"]},
    "a symbol that is too long": {"type": "bars_1m", "symbols": ["A" * 33]},
    "unknown type": {"type": "ticks", "symbols": ["A"]},
    "unknown interval": {"interval": "7m", "symbols": ["A"]},
    "interval against type": {"type": "bars_eod", "interval": "1m", "symbols": ["A"]},
    "unknown tier": {"type": "bars_1m", "symbols": ["A"], "tier": "T3"},
    "unknown priority": {"type": "bars_1m", "symbols": ["A"], "priority": 3},
    "another version": {"v": 2, "type": "bars_1m", "symbols": ["A"]},
    "empty id": {"id": "", "type": "bars_1m", "symbols": ["A"]},
    "an id that is a list": {"id": ["x"], "type": "bars_1m", "symbols": ["A"]},
    "a provider that is a number": {"type": "bars_1m", "symbols": ["A"], "provider": 3},
    "a time that is a number": {"type": "bars_1m", "symbols": ["A"], "not_after": 1709650800},
    "a start that is a list": {"type": "bars_1m", "symbols": ["A"], "start": [], "end": []},
}
GOOD: dict[str, dict[str, Any]] = {
    "all fields": FULL,
    "the least": {"type": "quotes_l1", "symbols": ["A"]},
    "symbol": {"type": "bars_1m", "symbol": "A"},
    "interval for type": {"interval": "1d", "symbol": "A"},
    "interval beside type": {"type": "bars_1m", "interval": "1m", "symbol": "A"},
    "priority as number": {"type": "bars_1m", "symbol": "A", "priority": 2},
    "a number as id": {"id": 17, "type": "bars_1m", "symbol": "A"},
    "nulls": {**FULL, "tier": None, "start": None, "end": None, "not_after": None},
    "unknown fields": {**FULL, "trace": {"span": 7}, "retries": 3},
    "an offset": {**FULL, "start": "2024-03-05T09:30:00-05:00"},
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_element_is_good_by_code_and_by_contract(name: str) -> None:
    JOB.validate(GOOD[name])

    assert read(json.dumps(GOOD[name]).encode()).problem is None


@pytest.mark.parametrize("name", BAD)
def test_a_bad_element_is_bad_by_code_and_by_contract(name: str) -> None:
    assert not JOB.is_valid(BAD[name])

    reading = read(json.dumps(BAD[name]).encode())
    assert reading.element is None
    assert reading.problem


fields = st.fixed_dictionaries(
    {},
    optional={
        "v": st.sampled_from([1, 2, "1"]),
        "id": st.one_of(st.text(max_size=3), st.integers(), st.none(), st.lists(st.none())),
        "type": st.sampled_from(["bars_1m", "bars_eod", "quotes_l1", "x", 3, None]),
        "interval": st.sampled_from(["1m", "1d", "5m", 60, None]),
        "symbols": st.lists(st.sampled_from(["A", "B.C", "", " ", 3, None]), max_size=3),
        "symbol": st.sampled_from(["A", "", "A B", 3]),
        "tier": st.sampled_from(["T0", "T2", "T7", 1, 4, None]),
        "priority": st.sampled_from(["T0", "T2", "T7", 1, 4, None]),
        "provider": st.sampled_from(["finnhub", "", 3, None]),
        "other": st.integers(),
    },
)


@settings(max_examples=400, deadline=None)
@given(fields)
def test_code_and_contract_agree_on_whatever_comes(document: dict[str, Any]) -> None:
    # What no schema can say of two fields: the first spelling that is there counts.
    if "tier" in document:
        document.pop("priority", None)
    if "symbols" in document:
        document.pop("symbol", None)
    if document.get("id") is None:
        document.pop("id", None)

    assert (read(json.dumps(document).encode()).problem is None) == JOB.is_valid(document)


@pytest.mark.parametrize(
    "raw", [b"", b"AAPL", b'{"type":', b"[]", b"7", b'"text"', b"\xff\xfe", b"null", b"[" * 5000]
)
def test_what_is_no_object_has_a_problem_and_no_id(raw: bytes) -> None:
    reading = read(raw)

    assert reading.problem
    assert (reading.document, reading.id, reading.element) == (None, None, None)


def test_a_bad_element_keeps_its_id() -> None:
    assert read(b'{"id": "x-1", "type": "ticks", "symbols": ["A"]}').id == "x-1"


def test_every_problem_is_named() -> None:
    problem = read(b'{"type": "ticks", "symbols": [], "tier": "T9", "start": 5}').problem

    assert problem is not None
    for field in ("type", "symbols", "tier", "start"):
        assert field in problem


def test_an_element_reads_as_it_was_meant() -> None:
    element = read(json.dumps(FULL).encode()).element

    assert element is not None
    assert element.kind is Kind.BARS_1M
    assert element.tier is Tier.T0
    assert element.symbols == ("AAPL", "MSFT")
    assert element.window == Window(
        datetime(2024, 3, 5, 14, 30, tzinfo=UTC), datetime(2024, 3, 5, 15, 0, tzinfo=UTC)
    )


def test_a_symbol_named_twice_is_asked_once() -> None:
    element = read(b'{"type": "bars_1m", "symbols": ["A", "B", "A"]}').element

    assert element is not None
    assert element.symbols == ("A", "B")


def test_a_window_that_ends_before_it_starts_has_a_problem() -> None:
    swapped = {**FULL, "start": FULL["end"], "end": FULL["start"]}

    assert "not after its start" in str(read(json.dumps(swapped).encode()).problem)


def test_a_time_without_a_zone_has_a_problem() -> None:
    bare = {**FULL, "not_after": "2024-03-05T15:10:00"}

    assert "no zone" in str(read(json.dumps(bare).encode()).problem)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_contract_is_a_schema_and_its_examples_follow_it(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    for example in SCHEMAS[name].get("examples", []):
        validator(name).validate(example)
