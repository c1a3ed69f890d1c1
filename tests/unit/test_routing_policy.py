"""The order of sources: hint, bands, probe, health, position."""

from hypothesis import given
from hypothesis import strategies as st

from routing.policy import Candidate, order

UP = Candidate()


def test_bands_are_strict_whatever_the_health() -> None:
    sick, well = Candidate(health=0.56), Candidate(health=1.0)
    assert order((("a",), ("b",)), {"a": sick, "b": well}, None) == ["a", "b"]


def test_within_a_band_the_healthiest_goes_first_and_position_breaks_ties() -> None:
    facts = {"a": Candidate(health=0.9), "b": Candidate(health=0.97), "c": Candidate(health=0.9)}
    assert order((("a", "b", "c"),), facts, None) == ["b", "a", "c"]


def test_noise_in_the_third_digit_does_not_swap_equals() -> None:
    facts = {"a": Candidate(health=0.991), "b": Candidate(health=0.994)}
    assert order((("a", "b"),), facts, None) == ["a", "b"]


def test_a_due_probe_goes_first_in_its_band_only() -> None:
    probe = Candidate(health=0.4, probe=True)
    assert order((("a", "b"),), {"a": UP, "b": probe}, None) == ["b", "a"]
    assert order((("a",), ("b",)), {"a": UP, "b": probe}, None) == ["a", "b"]


def test_the_hint_goes_before_the_policy_and_once() -> None:
    facts = {"a": UP, "b": UP, "c": UP}
    assert order((("a", "b"),), facts, "b") == ["b", "a"]
    assert order((("a",),), facts, "c") == ["c", "a"]


def test_who_refuses_is_not_in_the_order() -> None:
    assert order((("a", "b"),), {"a": Candidate("open", 1.0), "b": UP}, None) == ["b"]


candidates = st.builds(
    Candidate,
    refusal=st.none() | st.just("no"),
    wait_s=st.none(),
    health=st.floats(0, 1),
    probe=st.booleans(),
)
bands = st.permutations("abcdef").flatmap(
    lambda names: st.lists(st.integers(0, 6), max_size=3).map(
        lambda cuts: tuple(
            tuple(names[a:b])
            for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 6], strict=True)
            if a < b
        )
    )
)


@given(
    bands,
    st.fixed_dictionaries(dict.fromkeys("abcdef", candidates)),
    st.none() | st.sampled_from("abcdef"),
)
def test_the_same_state_gives_the_same_order_and_every_source_is_tried_or_has_a_reason(
    policy: tuple[tuple[str, ...], ...], facts: dict[str, Candidate], first: str | None
) -> None:
    ordered = order(policy, facts, first)
    shuffled = dict(reversed(facts.items()))
    assert ordered == order(policy, shuffled, first)
    assert len(set(ordered)) == len(ordered)
    assert set(ordered) == {name for name in facts if facts[name].refusal is None}
    rest = [name for name in ordered if name != first]
    places = [next(i for i, band in enumerate(policy) if name in band) for name in rest]
    assert places == sorted(places)
