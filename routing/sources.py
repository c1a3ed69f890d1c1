"""What the router chooses from: installed sources, and names that a policy may use but nobody serves."""

from dataclasses import dataclass

from core.words import Capability
from providers.base import Provider, Spec


@dataclass(frozen=True, slots=True)
class Source:
    """A provider's feed, or the reason why a known name can't be asked."""

    name: str
    provider: Provider | None
    ineligible: str | None = None
    """Why nobody can ask it: not installed, no key. None for an installed source."""

    def spec(self, capability: Capability) -> Spec | None:
        """Facts of one capability, None when the source does not offer it."""
        return None if self.provider is None else self.provider.specs().get(capability)
