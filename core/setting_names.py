"""Which names a settings file may use: a misspelt one changes nothing and says nothing."""

from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel
from pydantic_settings import DotEnvSettingsSource

from core.errors import SettingsError
from core.settings import Settings

COMPOSE_ONLY = frozenset({"POSTGRES_PASSWORD", "REDIS_PASSWORD", "GAPLESS_VERSION"})
"""Names of docker-compose.yml, which reads the same file."""


def names() -> frozenset[str]:
    """Every name that the settings read, in upper case; nested ones whole and by part."""
    found: set[str] = set()
    for field, facts in Settings.model_fields.items():
        found.add(field.upper())
        if isinstance(facts.default, BaseModel):
            parts = type(facts.default).model_fields
            found |= {f"{field}__{part}".upper() for part in parts}
    return frozenset(found)


def unknown_names(env_file: Path) -> list[tuple[str, str | None]]:
    """Names in a settings file that nothing reads, each with the known one that looks like it.

    Raises:
        SettingsError: the file is no text in UTF-8.
    """
    if not env_file.is_file():
        return []
    try:
        said = DotEnvSettingsSource(Settings, env_file=env_file, case_sensitive=True).env_vars
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"settings file {env_file} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    known = names() | COMPOSE_ONLY
    return [
        (name, next(iter(get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.75)), None))
        for name in said
        if name.upper() not in known
    ]
