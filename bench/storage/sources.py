"""The integer key of a source, for who writes beside ``db.candles.write``."""

from bench.databases import Owner
from bench.storage.market import SOURCE
from db.sources import source_id


def provider_id_of(owner: Owner, name: str = SOURCE) -> int:
    """The key, made on first use."""
    return source_id(owner, name)
