"""The wire between versions: names, ids and payloads that a deploy must not change unseen."""

from datetime import UTC, datetime

import pytest

from core.errors import BadJobError
from core.words import Capability, Tier
from workers import jobs, queues
from workers.queues import BackfillJob, CollectJob, Kind

SLOT = datetime(2024, 3, 5, 15, 0, tzinfo=UTC)
LIVE = CollectJob(
    kind=Kind.BARS_1M,
    tier=Tier.T0,
    slot=SLOT,
    symbols=("AAPL", "MSFT"),
    not_after=datetime(2024, 3, 5, 15, 2, tzinfo=UTC),
    start=datetime(2024, 3, 5, 14, 58, tzinfo=UTC),
    end=SLOT,
    phase=3,
    part=1,
)
LIVE_WIRE = {
    "v": 1,
    "kind": "bars_1m",
    "tier": "T0",
    "slot": "2024-03-05T15:00:00Z",
    "symbols": ["AAPL", "MSFT"],
    "not_after": "2024-03-05T15:02:00Z",
    "start": "2024-03-05T14:58:00Z",
    "end": "2024-03-05T15:00:00Z",
    "provider": None,
    "inbox": None,
    "phase": 3,
    "part": 1,
    "push": "",
}


def test_queue_names_are_pinned() -> None:
    assert queues.QUEUES == (
        "collect:T0",
        "collect:T1",
        "collect:T2",
        "backfill:T0",
        "backfill:T1",
        "backfill:T2",
    )


def test_function_names_are_pinned_and_known_to_this_version() -> None:
    assert queues.COLLECT_FUNCTION == "workers.jobs.collect"
    assert queues.BACKFILL_FUNCTION == "workers.jobs.backfill"
    assert set(jobs.FUNCTIONS) == {"workers.jobs.collect", "workers.jobs.backfill"}


def test_the_collect_payload_is_pinned() -> None:
    assert LIVE.to_wire() == LIVE_WIRE
    assert CollectJob.from_wire(LIVE_WIRE) == LIVE


def test_the_backfill_payload_is_pinned() -> None:
    job = BackfillJob(tier=Tier.T1, ids=(4, 9), push=2)

    assert job.to_wire() == {"v": 1, "tier": "T1", "ids": [4, 9], "push": 2}
    assert BackfillJob.from_wire({**job.to_wire(), "later": "field"}) == job


def test_coordinator_elements_survive_the_wire() -> None:
    job = CollectJob(
        kind=Kind.QUOTES_L1,
        tier=Tier.T2,
        slot=SLOT,
        symbols=("A", "B"),
        not_after=SLOT,
        inbox={17: ("A",), 4: ("A", "B")},
        push="ab12",
    )
    wire = job.to_wire()

    assert wire["inbox"] == {"17": ["A"], "4": ["A", "B"]} or wire["inbox"] == {
        17: ["A"],
        4: ["A", "B"],
    }
    assert CollectJob.from_wire(wire) == job


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "c-bars_1m-T0-1709650800-3-1"),
        ({"provider": "alpaca.iex"}, "c-bars_1m-T0-1709650800-3-1-alpaca_iex"),
        (
            {"inbox": {"9": ["AAPL"], "4": ["MSFT"]}, "push": "ab"},
            "c-bars_1m-T0-1709650800-3-1-i4-ab",
        ),
    ],
)
def test_collect_ids_are_pinned(changes: dict[str, object], expected: str) -> None:
    assert CollectJob.from_wire({**LIVE_WIRE, **changes}).id == expected


def test_backfill_ids_differ_by_rows_and_by_push() -> None:
    ids = {
        BackfillJob(tier=Tier.T0, ids=rows, push=push).id
        for rows in ((1, 2), (12,), (2, 1))
        for push in (1, 2)
    }

    assert len(ids) == 6
    assert BackfillJob(tier=Tier.T0, ids=(1, 2), push=1).id == "b-T0-3842b97832342e027a4bbed3-1"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ([], "not one JSON object"),
        ({}, "version None"),
        ({**LIVE_WIRE, "v": 2}, "version 2"),
        ({**LIVE_WIRE, "kind": "depth_l2"}, "kind"),
        ({**LIVE_WIRE, "tier": "T7"}, "tier"),
        ({**LIVE_WIRE, "symbols": []}, "no symbols"),
        ({**LIVE_WIRE, "symbols": "AAPL"}, "symbols"),
        ({**LIVE_WIRE, "end": None}, "window"),
        ({**LIVE_WIRE, "end": LIVE_WIRE["start"]}, "window"),
        ({**LIVE_WIRE, "slot": "2024-03-05T15:00:00"}, "slot"),
        ({key: LIVE_WIRE[key] for key in LIVE_WIRE if key != "not_after"}, "not_after"),
    ],
)
def test_a_payload_of_another_world_is_a_bad_job(payload: object, said: str) -> None:
    with pytest.raises(BadJobError, match=said):
        CollectJob.from_wire(payload)


@pytest.mark.parametrize("changes", [{"v": 2}, {"ids": []}, {"ids": ["x"]}, {"push": None}])
def test_a_backfill_payload_of_another_world_is_a_bad_job(changes: dict[str, object]) -> None:
    with pytest.raises(BadJobError):
        BackfillJob.from_wire({"v": 1, "tier": "T0", "ids": [1], "push": 1, **changes})


def test_a_reread_asks_for_one_minute_bars() -> None:
    assert Kind.REREAD.capability is Capability.BARS_1M
    assert [kind.value for kind in Kind] == ["bars_1m", "quotes_l1", "bars_eod", "reread"]
