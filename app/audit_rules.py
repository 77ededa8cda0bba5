"""Run-config keys that make no sense together with canaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.config import RunConfig

FEWEST = 10


def audit(config: RunConfig) -> Iterator[str]:
    """Yield a sentence for each reason why this run cannot be audited."""
    if 0 < config.canaries < FEWEST:
        yield (
            f"The key 'canaries' is {config.canaries}, but so few prove nothing: set it to {FEWEST} or more (100 is "
            "usual), or to 0 for no audit."
        )
    if config.canaries and config.attack != "none":
        yield (
            f"The keys 'canaries' ({config.canaries}) and 'attack' ('{config.attack}') exclude each other: beside "
            "canaries, all clients must be honest. Leave one of them at its default."
        )
    if config.canaries and config.strategy == "scaffold":
        yield (
            f"The key 'canaries' is {config.canaries}, but with 'strategy' 'scaffold' a client answers with more than "
            "an update, which canaries do not have: change 'strategy', or set 'canaries' to 0."
        )
