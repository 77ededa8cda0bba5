"""Which of the keys that say who takes part in a round make no sense together; part of `app.contradictions`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.config import RunConfig


def selection(config: RunConfig) -> Iterator[str]:
    """Yield a sentence for each contradiction between a way to draw cohorts and their size."""
    if config.partition == "natural" and config.pass_rounds == 0 and _cyclic(config):
        yield (
            "The key 'pass-rounds' is 0, but with 'partition' 'natural' only the data set knows how many clients there "
            "are: set it to their number by 'clients-per-round'."
        )
    if config.selection in ("", "uniform"):
        return
    if config.clients_per_round == 0:
        yield (
            f"The key 'selection' is '{config.selection}', but 'clients-per-round' 0 asks every client: set it to how "
            "many a round needs, or 'selection' to 'uniform'."
        )
    if config.selection in ("poisson", "cyclic") and config.over_selection > 1:
        yield (
            f"The key 'over-selection' is {config.over_selection:g}, but with 'selection' '{config.selection}' chance "
            "alone says who takes part: leave it at 1, or change 'selection'."
        )
    if config.selection == "power-of-choice":
        yield from _candidates(config)


def _cyclic(config: RunConfig) -> bool:
    return config.selection == "cyclic" or config.strategy in ("dp-ftrl", "dp-mf")


def _candidates(config: RunConfig) -> Iterator[str]:
    from strategies.samplers import asked  # NumPy is only paid for when a config is really checked

    chosen, candidates = asked(config.clients_per_round, config.over_selection), config.power_of_choice_candidates
    if 0 < candidates < chosen:
        yield (
            f"The key 'power-of-choice-candidates' is {candidates}, but {chosen} clients are chosen from them: raise "
            "it, leave it at 0 for twice as many, or lower 'clients-per-round'."
        )
    if config.partition != "natural" and candidates > config.num_clients:
        yield (
            f"The key 'power-of-choice-candidates' is {candidates}, but 'num-clients' is only {config.num_clients}: "
            "lower the first (0 = twice as many as are chosen) or raise the second."
        )
    if config.strategy == "fedbuff":
        yield (
            "The key 'selection' is 'power-of-choice', but with 'strategy' 'fedbuff' clients do not begin from one "
            "model that candidates could be asked about before: change one of the two."
        )


def bans(config: RunConfig) -> Iterator[str]:
    """Yield a sentence where bans have a length but never begin."""
    usual = type(config).model_fields["ban_rounds"].default
    if config.ban_after == 0 and config.ban_rounds != usual:
        yield (
            f"The key 'ban-rounds' is {config.ban_rounds}, but nobody is ever banned: set 'ban-after' above 0, or "
            f"leave 'ban-rounds' at {usual}."
        )
