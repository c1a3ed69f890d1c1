"""Settings: every mistake at once, nothing secret shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.errors import SettingsError
from core.setting_names import unknown_names
from core.settings import load, parse_limits
from core.words import Capability, Tier


@pytest.fixture
def no_file(tmp_path: Path) -> Path:
    return tmp_path / "absent.env"


def test_defaults_are_those_of_the_design(no_file: Path) -> None:
    settings = load(no_file)
    assert settings.policy(Capability.BARS_1M) == (("finnhub",), ("alphavantage",), ("yfinance",))
    assert settings.policy(Capability.QUOTES_L1) == (("finnhub",), ("yfinance",))
    assert settings.tier_maxs.t0 == 1200
    assert settings.cadence_s(Tier.T0, Capability.QUOTES_L1) == 5
    assert settings.cadence_s(Tier.T1, Capability.BARS_1M) == 300
    assert settings.cadence_s(Tier.T2, Capability.BARS_1M) is None


def test_five_mistakes_are_listed_together(tmp_path: Path) -> None:
    file = tmp_path / "bad.env"
    file.write_text(
        "CADENCE_T0__bars_1m=-1\nPOLICY_EOD=a,,b\nMETRICS_PORT=many\nDATABASE_URL=mysql://u:hunter2@h/d\nLOG_LEVEL=loud\n"
    )
    with pytest.raises(SettingsError) as caught:
        load(file)
    message = str(caught.value)
    assert message.startswith("5 settings are invalid")
    for name in ("CADENCE_T0__BARS_1M", "POLICY_EOD", "METRICS_PORT", "DATABASE_URL", "LOG_LEVEL"):
        assert name in message
    assert "'many'" in message, "a number's value is shown"
    assert "hunter2" not in message


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.env"
    file.write_text("CADENCE_T0__bars_1m=30\nTIER_MAXS__T0=7\n")
    monkeypatch.setenv("CADENCE_T0__bars_1m", "15")
    settings = load(file)
    assert settings.cadence_t0.bars_1m == 15
    assert settings.tier_maxs.t0 == 7


def test_bands_and_bars_of_a_policy_are_kept_apart(no_file: Path) -> None:
    settings = load(no_file, {"policy_bars_1m": "alpaca.sip|polygon, yfinance"})
    assert settings.policy(Capability.BARS_1M) == (("alpaca.sip", "polygon"), ("yfinance",))


def test_a_policy_that_names_a_source_twice_is_refused(no_file: Path) -> None:
    with pytest.raises(SettingsError, match="names a provider twice"):
        load(no_file, {"policy_eod": "yfinance,finnhub|yfinance"})


def test_secrets_are_masked_when_settings_are_printed(no_file: Path) -> None:
    settings = load(no_file, {"finnhub_api_key": "hunter2"})
    assert "hunter2" not in repr(settings)
    assert settings.finnhub_api_key is not None
    assert settings.finnhub_api_key.get_secret_value() == "hunter2"


def test_an_empty_key_means_no_key(no_file: Path) -> None:
    assert load(no_file, {"finnhub_api_key": "  "}).finnhub_api_key is None


def test_limits_are_units_per_seconds() -> None:
    assert parse_limits("60/60s, 30/1") == ((60, 60.0), (30, 1.0))


@pytest.mark.parametrize("text", ["60", "0/60", "x/1", "5/0s", ""])
def test_a_bad_limit_is_named_with_the_form_that_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected units/seconds"):
        parse_limits(text)


def test_candles_are_kept_for_ever_or_for_a_month_at_least(no_file: Path) -> None:
    now = datetime(2026, 3, 31, tzinfo=UTC)
    assert load(no_file).candles_kept_since(now) is None
    kept = load(no_file, {"candle_retention_days": 30})
    assert kept.candles_kept_since(now) == datetime(2026, 3, 1, tzinfo=UTC)
    with pytest.raises(SettingsError, match="at least 30"):
        load(no_file, {"candle_retention_days": 7})


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.env"
    file.write_bytes(b"LOG_LEVEL=\xe9\n")
    with pytest.raises(SettingsError, match=r"latin\.env is not UTF-8 text \(byte 10\)"):
        load(file)


def test_names_that_nothing_reads_are_told_with_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text(
        "NOPE=1\nPOLICY_QUOTE_L1=finnhub\nTIER_MAXS__T0=5\ncadence_t0__bars_1m=30\nREDIS_PASSWORD=x\n"
    )
    assert unknown_names(file) == [("NOPE", None), ("POLICY_QUOTE_L1", "POLICY_QUOTES_L1")]
    assert unknown_names(tmp_path / "absent.env") == []
