"""`ops plan` compares demand with budgets in figures that people read."""

import pytest

from ops.commands.plan import _rate


@pytest.mark.parametrize(
    ("value", "shown"),
    [(11.180555556, 11.2), (3000.0, 3000.0), (0.0173611, 0.017), (2.0, 2.0), (None, None)],
)
def test_rates_have_as_many_digits_as_they_need(value: float | None, shown: float | None) -> None:
    assert _rate(value) == shown
