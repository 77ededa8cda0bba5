"""Which keys of compression make no sense together; part of `app.contradictions`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.config import RunConfig


def compression(config: RunConfig) -> Iterator[str]:
    """Yield a sentence for a codec that cannot be, and for a momentum of error feedback that there is not."""
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
