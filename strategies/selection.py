"""The beginning of a round: who can be asked, whom the sampler draws, and what it may ask them before it decides.

A round costs less privacy where its cohort is a sample, as long as nobody sees whom it holds (Balle, Barthe, Gaboardi:
"Privacy Amplification by Subsampling: Tight Analyses via Couplings and Divergences", 2018). All nodes know the run's
seed: so a deployment whose privacy counts on the sampling takes a seed of the operating system's entropy for each
cohort, as it does for its noise. A round that is begun again, after the process was killed, then is another sample, as
the ledger has it: two releases of one cohort would cost far more than those of two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from flwr.app import ConfigRecordValues

from strategies import wire
from strategies.clock import await_online
from strategies.composition import Composition
from strategies.guarantees import Property
from strategies.population import Population
from strategies.privacy.budget import Budget
from strategies.records import ClientScores
from strategies.rounds import RoundProgress
from strategies.samplers import Losses, Sampler
from strategies.seeding import secret_seed

logger = logging.getLogger(__name__)

Evaluate = Callable[[Sequence[str], Mapping[str, ConfigRecordValues]], ClientScores | None]
"""Asks these clients to evaluate the present model, with these settings."""


def counts_on_secrecy(composition: Composition) -> bool:
    """Tell whether privacy is accounted for a sample of the clients, of which nobody may know whom it holds."""
    return Property.KNOWN_SAMPLING in composition.privacy.guarantees.needs


def counts_on_names(composition: Composition, budget: Budget) -> bool:
    """Tell whether privacy is accounted by how often each client takes part: one with two names would pay half."""
    accounted = composition.privacy.noise_multiplier is not None and not counts_on_secrecy(composition)
    return accounted or budget.by_client


def cohort_seed(composition: Composition, seed: int, simulated: bool) -> int:
    """Return what a round's cohort is drawn by: the run's seed, or one that nobody knows."""
    return secret_seed() if counts_on_secrecy(composition) and not simulated else seed


def told_size(composition: Composition, clients: int, cohort: Sequence[str]) -> int:
    """Return what clients may be told of the cohort's size: what is expected, of so many, where it is to be secret."""
    return composition.sampler.cohort_size(clients) if counts_on_secrecy(composition) else len(cohort)


def select(
    sampler: Sampler, seed: int, grid: object, population: Population, progress: RoundProgress, losses: Losses
) -> list[str]:
    """Return the cohort of a round: of the clients that are online, or will be first, without those that are banned."""
    banned = progress.note_banned(population)
    offered = await_online(grid, population, banned)
    progress.offered = len(offered)
    progress.cohort = sampler.sample(progress.round, offered, seed, losses)
    return progress.cohort


def losses_by(evaluate: Evaluate, progress: RoundProgress) -> Losses:
    """Return what asks clients for the loss of the present model on their training examples.

    A client of another framework, which does not know that setting, answers with the loss on whatever it evaluates on.
    Who gives no scores that can be true (`strategies.scores`: an accuracy is one of them) is silent, which is told.
    """

    def ask(clients: Sequence[str]) -> dict[str, float]:
        with progress.phase("select"):
            scores = evaluate(clients, {wire.DATA_PART: wire.TRAIN_PART})
        found = {} if scores is None else dict(zip(scores.clients, scores.losses, strict=True))
        if silent := len(clients) - len(found):
            logger.warning(
                "Round %d: of %d candidates %d gave no loss and accuracy, and come last",
                *(progress.round, len(clients), silent),
            )
        return found

    return ask
