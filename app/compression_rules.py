"""Which keys of compression make no sense together, or beside those of privacy; part of `app.contradictions`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.config import RunConfig

AMPLIFIED = ("dp-fedavg", "dp-fedavg-adaptive")


def compression(config: RunConfig) -> Iterator[str]:
    """Yield a sentence for a codec that cannot be, and for error feedback that privacy would not be accounted with."""
    if config.codec == "none":
        return
    from strategies.compression.feedback import feeds_back  # which imports Flower
    from strategies.errors import StrategyError

    try:
        fed_back = feeds_back(config.to_run_config())
    except StrategyError as error:
        yield str(error)
        return
    if config.error_feedback_momentum > 0 and not fed_back:
        yield (
            f"The key 'error-feedback-momentum' is {config.error_feedback_momentum:g}, but there is no error feedback: "
            "leave it at 0, or set 'error-feedback' to 'on'."
        )
    if fed_back and config.selection == "uniform" and {config.strategy, config.privacy} & set(AMPLIFIED):
        yield (
            "The keys 'error-feedback' and 'selection' 'uniform' exclude each other under differential privacy: what a "
            "client sends then depends on when it was drawn before, and only where clients are drawn independently is "
            "a round still accounted as one of a sample. Set 'selection' to 'poisson', or 'error-feedback' to 'off'."
        )
