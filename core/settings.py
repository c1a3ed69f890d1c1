"""The only reader of the environment: every setting, its default, its check.

Policies are strings (``finnhub,yfinance|alpaca.iex``): pydantic-settings would want JSON for a list.
"""

import json
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pydantic_settings
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from core.errors import SettingsError
from core.words import Capability, Tier

_LEAST_CANDLE_DAYS = 30
"""As ``gapless_expire()`` has it: gap passes and re-reads reach back some sessions."""


def _policy_text(value: Any) -> str:
    text = str(value).strip()
    names = [name.strip() for band in text.split(",") for name in band.split("|")]
    if not text or any(not name for name in names):
        raise ValueError(
            f"policy {text!r} has an empty name; expected provider names with ',' between bands and '|' "
            "inside a band, such as finnhub,yfinance|alpaca.iex"
        )
    if len(set(names)) != len(names):
        raise ValueError(f"policy {text!r} names a provider twice; name each once")
    return text


def _candle_days(value: int) -> int:
    if value and value < _LEAST_CANDLE_DAYS:
        raise ValueError(
            f"{value} days are too few; expected 0 (for ever) or at least {_LEAST_CANDLE_DAYS}"
        )
    return value


def _starting(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        if value and not value.startswith(schemes):
            raise ValueError(f"must start with {' or '.join(schemes)}")
        return value

    return AfterValidator(check)


def _limits_text(value: str) -> str:
    parse_limits(value)
    return value


def _level(value: str) -> str:
    if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError(f"is {value!r}; expected DEBUG, INFO, WARNING or ERROR")
    return value.upper()


def _secret_or_none(value: Any) -> Any:
    return None if value is None or str(value).strip() == "" else value


Policy = Annotated[str, BeforeValidator(_policy_text)]
Secret = Annotated[SecretStr | None, BeforeValidator(_secret_or_none)]
PostgresUrl = Annotated[str, _starting("postgresql://", "postgres://")]
RedisUrl = Annotated[str, _starting("redis://", "rediss://", "unix://")]
Limits = Annotated[str, AfterValidator(_limits_text)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class TierMaxs(BaseModel):
    """How many symbols the upper tiers may hold; the rest is T2."""

    t0: PositiveInt = 1200
    t1: PositiveInt = 3000


class CadenceT0(BaseModel):
    """Seconds between two asks of one T0 symbol, in session."""

    bars_1m: PositiveFloat = 60
    quotes_l1: PositiveFloat = 5


class CadenceT1(BaseModel):
    """Seconds between two asks of one T1 symbol, in session."""

    bars_1m: PositiveFloat = 300
    quotes_l1: PositiveFloat = 15


class CadenceT2(BaseModel):
    """Sweeps per session of T2: end-of-day bars only."""

    eod: PositiveInt = 1


class BackfillKeys(BaseModel):
    """Redis lists on which the external coordinator asks for backfills."""

    t0: str = "market:backfills:T0"
    t1: str = "market:backfills:T1"
    t2: str = "market:backfills:T2"


class Settings(BaseSettings):
    """Everything that can be tuned, with defaults that work on one machine."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__", extra="ignore", frozen=True, case_sensitive=False
    )

    database_url: PostgresUrl = "postgresql://gapless@127.0.0.1:5432/gapless"
    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"

    gapless_home: str = ".gapless"
    """Folder for what a machine keeps beside the database: embedded servers, logs, provider sessions."""

    finnhub_api_key: Secret = None
    finnhub_base_url: str = "https://api.finnhub.io/api/v1"
    finnhub_premium: bool = False
    """Whether the key's plan includes candles; when unknown leave false and quotes only are asked."""
    alpha_vantage_api_key: Secret = None
    alpha_vantage_base_url: str = "https://www.alphavantage.co"
    alpha_vantage_plan: Literal["free", "premium", "delayed", "realtime"] = "free"
    """What the key's plan includes: ``free`` daily bars of the last 100 sessions and quotes; ``premium``
    all days, and minutes up to yesterday; ``delayed`` and ``realtime`` minutes up to 15 minutes ago or now."""
    alpaca_api_key: Secret = None
    alpaca_secret_key: Secret = None
    alpaca_base_url: str = "https://data.alpaca.markets"
    alpaca_sip_realtime: bool = False
    """Whether the plan includes the last 15 minutes of the consolidated feed."""
    polygon_api_key: Secret = None
    massive_api_key: Secret = None
    """Massive's name of the same key, for those who have it set; ``polygon_api_key`` stands above it."""
    polygon_base_url: str = "https://api.massive.com"
    """Massive is Polygon's name since 2025; api.polygon.io answers alike."""
    polygon_plan: Literal["basic", "starter", "developer", "advanced"] = "basic"
    """What the key's plan for stocks includes: history, how late it is, quotes."""
    binance_base_url: str = "https://api.binance.com"
    yahoo_base_url: str = ""
    """Empty: the real hosts. Else every Yahoo call goes to this base (a simulator)."""
    csv_dir: str = ""
    """Folder of bar files for the csv provider; empty: the provider is ineligible."""

    yfinance_limits: Limits = "60/60s"
    finnhub_limits: Limits = "60/60s,30/1s"
    alpha_vantage_limits: Limits = "25/86400s,1/1s"
    alpaca_limits: Limits = "200/60s"
    polygon_limits: Limits = "5/60s"
    binance_limits: Limits = "6000/60s"
    """Rolling windows in market seconds, ``units/seconds`` joined by commas."""

    policy_bars_1m: Policy = "finnhub,alphavantage,yfinance"
    policy_eod: Policy = "yfinance,alphavantage,finnhub"
    policy_quotes_l1: Policy = "finnhub,yfinance"
    policy_options_chain: Policy = "yfinance"
    allow_source_override: bool = False

    use_rlc: bool = False
    local_sweep_enabled: bool = True
    rlc_redis_url: RedisUrl = ""
    """Empty: the coordinator's lists are in REDIS_URL."""
    rlc_redis_jobs_key: str = "market:jobs"
    rlc_redis_backfill_keys: BackfillKeys = BackfillKeys()

    tier_maxs: TierMaxs = TierMaxs()
    cadence_t0: CadenceT0 = CadenceT0()
    cadence_t1: CadenceT1 = CadenceT1()
    cadence_t2: CadenceT2 = CadenceT2()

    live_batch_size: PositiveInt = 100
    backfill_batch_size: PositiveInt = 20
    """Backfill rows per queue job."""
    backfill_chunk_minutes: PositiveInt = 1440
    backfill_max_concurrency_t0: PositiveInt = 8
    backfill_max_concurrency_t1: PositiveInt = 4
    backfill_max_concurrency_t2: PositiveInt = 2
    backfill_dispatch_rate_per_sec: PositiveFloat = 50
    backfill_max_attempts: PositiveInt = 8

    worker_threads: PositiveInt = 32
    """Concurrent provider calls of one worker process."""
    worker_batches: PositiveInt = 4
    """Batches in flight in one worker process."""

    store_partial: bool = False
    """Store bars asked for before their end, as ``partial``."""
    payload_retention_days: PositiveInt = 3
    quote_retention_days: PositiveInt = 30
    candle_retention_days: Annotated[int, AfterValidator(_candle_days)] = 0
    """0: candles are kept for ever; otherwise at least 30."""

    log_level: Annotated[str, AfterValidator(_level)] = "INFO"
    metrics_enabled: bool = True
    metrics_port: int = Field(default=9108, ge=0, le=65_535)
    """0: any free port."""

    def policy(self, capability: Capability) -> tuple[tuple[str, ...], ...]:
        """Source names by band, best band first."""
        text = {
            Capability.BARS_1M: self.policy_bars_1m,
            Capability.BARS_EOD: self.policy_eod,
            Capability.QUOTES_L1: self.policy_quotes_l1,
            Capability.OPTIONS_CHAIN: self.policy_options_chain,
        }[capability]
        return tuple(tuple(name.strip() for name in band.split("|")) for band in text.split(","))

    def cadence_s(self, tier: Tier, capability: Capability) -> float | None:
        """Market seconds between two asks of a symbol in session, None where the tier has none."""
        table = {
            (Tier.T0, Capability.BARS_1M): self.cadence_t0.bars_1m,
            (Tier.T0, Capability.QUOTES_L1): self.cadence_t0.quotes_l1,
            (Tier.T1, Capability.BARS_1M): self.cadence_t1.bars_1m,
            (Tier.T1, Capability.QUOTES_L1): self.cadence_t1.quotes_l1,
        }
        return table.get((tier, capability))

    def backfill_max_concurrency(self, tier: Tier) -> int:
        """Backfill rows of a tier that may run at once in the whole fleet."""
        return {
            Tier.T0: self.backfill_max_concurrency_t0,
            Tier.T1: self.backfill_max_concurrency_t1,
            Tier.T2: self.backfill_max_concurrency_t2,
        }[tier]

    def candles_kept_since(self, now: datetime) -> datetime | None:
        """Bars that start before this expire; None when they are kept for ever."""
        days = self.candle_retention_days
        return now - timedelta(days=days) if days else None

    def coordinator_url(self) -> str:
        """Where the coordinator's lists live."""
        return self.rlc_redis_url or self.redis_url


def parse_limits(text: str) -> tuple[tuple[int, float], ...]:
    """``"60/60s,30/1s"`` -> ``((60, 60.0), (30, 1.0))``: units per rolling window of market seconds."""
    limits: list[tuple[int, float]] = []
    for part in text.split(","):
        units, slash, seconds = part.strip().partition("/")
        try:
            limit = (int(units), float(seconds.removesuffix("s")))
        except ValueError:
            limit = (0, 0.0)
        if not slash or limit[0] <= 0 or limit[1] <= 0:
            raise ValueError(f"{part.strip()!r} is no limit; expected units/seconds such as 60/60s")
        limits.append(limit)
    return tuple(limits)


def load(env_file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read settings from the environment over ``env_file`` (default ``.env`` in the current folder).

    Raises:
        SettingsError: with every problem in one message, no secret in it.
    """
    try:
        return Settings(
            _env_file=env_file or Path(".env"),  # pyright: ignore[reportCallIssue] - pydantic-settings takes it
            **dict(overrides or {}),
        )
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"settings file {env_file or '.env'} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except pydantic_settings.SettingsError as error:
        # Its message holds no value, only the name of what is no JSON.
        raise SettingsError(f"1 setting is invalid:\n  - {error}") from None


FIXED = frozenset(
    {
        *("database_url", "redis_url", "gapless_home", "worker_threads", "worker_batches"),
        *("use_rlc", "rlc_redis_url", "rlc_redis_jobs_key", "rlc_redis_backfill_keys"),
        *("log_level", "metrics_enabled", "metrics_port"),
    }
)
"""Settings that a process keeps until it is started again."""
LOCAL = frozenset(
    name
    for name in Settings.model_fields
    if name.endswith(("_api_key", "_secret_key", "_base_url")) or name == "csv_dir"
)
"""Secrets and addresses: every machine has its own, and takes on its own file's."""


def shared_defaults() -> dict[str, str]:
    """The settings that the fleet has in common, flat (``cadence_t0__bars_1m``), at their defaults."""
    found: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        if name in FIXED | LOCAL:
            continue
        if isinstance(field.default, BaseModel):
            inner = field.default.model_dump()
            found |= {f"{name}__{part}": str(value) for part, value in inner.items()}
        else:
            found[name] = str(field.default)
    return found


def shared_of(env_file: Path) -> dict[str, str]:
    """What a settings file says of the shared settings, as it says it; the environment aside."""
    shared, found = shared_defaults(), dict[str, str]()
    said = DotEnvSettingsSource(Settings, env_file=env_file, case_sensitive=False).env_vars
    for name, text in said.items():
        if text is None:
            continue
        inner = {name.lower(): text}
        if any(flat.startswith(f"{name.lower()}__") for flat in shared):
            inner = {f"{name}__{part}".lower(): str(value) for part, value in _parts(name, text)}
        found |= {flat: value for flat, value in inner.items() if flat in shared}
    return found


def _parts(name: str, text: str) -> list[tuple[str, Any]]:
    """A nested setting that is written as one JSON object."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise SettingsError(f"1 setting is invalid:\n  - {name.upper()}: expected a JSON object")
    return list(cast("dict[str, Any]", value).items())


def kept_by_environment() -> frozenset[str]:
    """Shared settings that this process's environment names: nothing published changes them."""
    named = {name.lower() for name in os.environ}
    return frozenset(
        name for name in shared_defaults() if name in named or name.partition("__")[0] in named
    )


def adopt(own: Settings, shared: Mapping[str, str]) -> Settings:
    """A process's settings with the fleet's in them; what the environment names stays.

    Args:
        own: Where everything else comes from.
        shared: As ``shared_of`` tells; what it lacks has its default.

    Raises:
        SettingsError: with every problem in one message.
    """
    values: dict[str, Any] = {name: getattr(own, name) for name in FIXED | LOCAL}
    kept = kept_by_environment()
    for flat, default in shared_defaults().items():
        if flat in kept:
            continue
        name, nested, part = flat.partition("__")
        text = shared.get(flat, default)
        if nested:
            values.setdefault(name, {})[part] = text
        else:
            values[name] = text
    try:
        return Settings(_env_file=None, **values)  # pyright: ignore[reportCallIssue] - pydantic-settings takes it
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def environment() -> dict[str, str]:
    """A copy of this process's environment, for children."""
    return dict(os.environ)


_NO_SECRET = ("bool_", "int_", "float_", "greater_", "less_")
"""Kinds of mistake in settings that are numbers or switches, whose value may be shown."""


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for item in error.errors(include_url=False):
        name = "__".join(str(part).upper() for part in item["loc"])
        messages = str(item["msg"]).removeprefix("Value error, ").splitlines()
        if item["type"].startswith(_NO_SECRET):
            messages[0] += f" (got {item['input']!r})"
        lines += [f"  - {name}: {message}" if name else f"  - {message}" for message in messages]
    count = len(lines)
    return f"{count} setting{'s are' if count != 1 else ' is'} invalid:\n" + "\n".join(lines)
