"""What a run config says about privacy on the clients (DP-SGD, local privacy) that makes no sense together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.config import RunConfig


def example_privacy(config: RunConfig) -> Iterator[str]:
    """Yield a sentence for keys that do nothing, and for whatever would release more of the examples than weights."""
    for key in ("dp-sgd-noise-multiplier", "dp-sgd-microbatches", "dp-sgd-delta"):
        field = type(config).model_fields[key.replace("-", "_")]
        given = getattr(config, key.replace("-", "_"))
        if config.dp_sgd_clip == 0 and given != field.default:
            yield (
                f"The key '{key}' is {given!r}, but does nothing with dp-sgd-clip 0: leave it at {field.default!r} or "
                "set 'dp-sgd-clip' above 0."
            )
    if config.dp_sgd_clip > 0 and config.selection == "power-of-choice":
        yield (
            "The keys 'dp-sgd-clip' and 'selection' 'power-of-choice' exclude each other: clients would tell their "
            "exact losses on the examples that are to stay private. Change 'selection', or set 'dp-sgd-clip' to 0."
        )
    if config.dp_sgd_clip > 0 and config.adaptive_mu:
        yield (
            "The keys 'dp-sgd-clip' and 'adaptive-mu' exclude each other: mu follows the training losses, which stay "
            "private. Leave 'adaptive-mu' at false, or set 'dp-sgd-clip' to 0."
        )


def local_privacy(config: RunConfig) -> Iterator[str]:
    """Yield a sentence where clients with noise of their own would be rejected for it."""
    if config.max_update_norm > 0 and "local-dp" in (config.strategy, config.privacy):
        yield (
            f"The key 'max-update-norm' is {config.max_update_norm:g}, but with local privacy noise makes updates "
            "long, and the server rejects what is longer than that: leave it at 0."
        )
