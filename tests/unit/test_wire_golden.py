"""What version 1 wrote to Redis must stay readable, and what this version writes must stay version 1.

Processes of two versions share queues, lists and tables during a deploy. ``tests/golden/wire-1.json`` is
what version 1 is; a change that this test refuses is a new version, or belongs beside the old words.
"""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis

from workers import elements, jobs, queues
from workers.queues import BackfillJob, CollectJob

ROOT = Path(__file__).resolve().parents[2]
GOLDEN: dict[str, Any] = json.loads((ROOT / "tests" / "golden" / "wire-1.json").read_text())
_FOR_PEOPLE = {"title", "description", "examples", "$comment"}


def bare(schema: Any) -> Any:
    """A schema without what only people read."""
    if isinstance(schema, dict):
        kept: dict[str, Any] = {k: bare(v) for k, v in schema.items() if k not in _FOR_PEOPLE}
        return kept
    return [bare(one) for one in schema] if isinstance(schema, list) else schema


def plain(value: object) -> Any:
    return json.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))


@pytest.mark.parametrize("sample", GOLDEN["collect"], ids=lambda sample: sample["id"])
def test_a_collect_job_of_version_1_is_read_and_written_as_it_was(sample: dict[str, Any]) -> None:
    job = CollectJob.from_wire(sample["wire"])
    assert plain(job.to_wire()) == sample["wire"]
    assert (job.id, job.queue, job.kind.timeout_s) == (
        sample["id"],
        sample["queue"],
        sample["timeout_s"],
    )
    assert CollectJob.from_wire({**sample["wire"], "of_a_later_version": [1]}) == job


@pytest.mark.parametrize("sample", GOLDEN["backfill"], ids=lambda sample: sample["id"])
def test_a_backfill_job_of_version_1_is_read_and_written_as_it_was(sample: dict[str, Any]) -> None:
    job = BackfillJob.from_wire(sample["wire"])
    assert plain(job.to_wire()) == sample["wire"]
    assert (job.id, job.queue) == (sample["id"], sample["queue"])
    assert BackfillJob.from_wire({**sample["wire"], "of_a_later_version": [1]}) == job


def test_names_in_redis_are_those_of_version_1() -> None:
    assert list(queues.QUEUES) == GOLDEN["queues"]
    assert sorted(jobs.FUNCTIONS) == GOLDEN["functions"]
    assert [kind.value for kind in queues.Kind] == GOLDEN["kinds"]


def test_the_hash_of_a_job_has_the_fields_of_version_1() -> None:
    job = CollectJob.from_wire(GOLDEN["collect"][0]["wire"])
    key, fields = queues._rq_hash(Redis(), job, queues.COLLECT_FUNCTION, job.kind.timeout_s)
    assert key == f"rq:job:{job.id}"
    assert sorted(fields[0::2]) == GOLDEN["hash_fields"]
    found = dict(zip(fields[0::2], fields[1::2], strict=True))
    told = {name: str(getattr(found[name], "value", found[name])) for name in GOLDEN["hash"]}
    assert told == GOLDEN["hash"]


@pytest.mark.parametrize("sample", GOLDEN["elements"], ids=lambda sample: sample["raw"][:60])
def test_an_element_of_version_1_means_what_it_meant(sample: dict[str, Any]) -> None:
    element = elements.parse(json.loads(sample["raw"]))
    assert (
        plain(
            {
                "id": element.id,
                "kind": element.kind,
                "symbols": element.symbols,
                "tier": element.tier,
                "provider": element.provider,
                "start": element.window.start if element.window else None,
                "end": element.window.end if element.window else None,
                "not_after": element.not_after,
            }
        )
        == sample["means"]
    )


@pytest.mark.parametrize("name", sorted(GOLDEN["schemas"]))
def test_a_published_contract_is_that_of_version_1(name: str) -> None:
    schema = json.loads((ROOT / "docs" / "contracts" / name).read_text())
    assert bare(schema) == GOLDEN["schemas"][name]


def test_the_words_of_the_tables_are_those_of_version_1() -> None:
    schema = (ROOT / "db" / "migrations" / "schema.sql").read_text()
    for words in GOLDEN["checks"]:
        listed = ", ".join(f"'{word}'::text" for word in words)
        assert f"ARRAY[{listed}]" in schema, words
