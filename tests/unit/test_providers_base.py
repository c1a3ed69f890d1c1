"""What quota headers say, read without knowing whose they are."""

import pytest

from providers.base import Limit, quota_used

MINUTE, SECOND, DAY = (
    Limit("60s", 60, 60.0, "key"),
    Limit("1s", 30, 1.0, "key"),
    Limit("86400s", 500, 86_400.0, "key"),
)


@pytest.mark.parametrize(
    ("headers", "used"),
    [
        ({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "45"}, {"60s": 15}),
        ({"x-ratelimit-limit": "30", "x-ratelimit-remaining": "30"}, {"1s": 0}),
        ({"x-ratelimit-limit": "100", "x-ratelimit-remaining": "90"}, {"60s": 10}),
        ({"x-mbx-used-weight-1m": "12"}, {"60s": 12}),
        ({"x-ratelimit-limit": "60"}, {}),
        ({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "soon"}, {}),
        ({}, {}),
    ],
)
def test_quota_headers_speak_of_the_limit_that_they_fit(
    headers: dict[str, str], used: dict[str, int]
) -> None:
    assert quota_used(headers, (MINUTE, SECOND, DAY)) == used
    assert quota_used(headers, ()) == {}
