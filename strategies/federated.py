"""What a round is, for all strategies: a Flower ``Strategy`` made of a few parts and rules.

Differences from Flower's own (see also `strategies.round_loop`): clients with stable ids are sampled instead of nodes;
many clients travel in one message; replies are folded into the aggregate as they arrive, so that the server's memory
does not grow with the cohort; no reply can hurt the run; a round has a deadline and a least number of replies. The four
methods of Flower's interface can also be called one by one.

What a round costs depends on its cohort and not on the population: `strategies.clock.online` says where it does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, ConfigRecordValues, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from strategies import wire
from strategies.bans import Bans
from strategies.census import Census
from strategies.clock import World
from strategies.composition import Composition
from strategies.compression.codec import Codec
from strategies.compression.differences import Differing
from strategies.compression.downlink import DOWNLINK, Broadcast, Differences, Outgoing
from strategies.errors import StrategyError
from strategies.evaluation import evaluators, gather
from strategies.pace import Pace, Synchronous
from strategies.population import Population
from strategies.privacy.noise import derived_noise, system_noise
from strategies.privacy.participations import examples_of
from strategies.privacy.spending import warnings
from strategies.records import ClientScores
from strategies.requests import NOTHING, Correspondence, RequestWriter, packs_for
from strategies.round_loop import CentralEvaluation as CentralEvaluation  # part of this module's interface, as Observer
from strategies.round_loop import Observer as Observer
from strategies.round_loop import RoundLoop
from strategies.rounds import RoundInFlight, RoundProgress, rate_of
from strategies.seeding import child_seed
from strategies.selection import cohort_seed, counts_on_names, losses_by, select, told_size
from strategies.server_model import ServerModel
from strategies.snapshot import NOWHERE, Journal
from strategies.step_fold import StepFold
from strategies.terms import RoundRules, RoundTerms

logger = logging.getLogger(__name__)

CODEC = "codec"  # a purpose of the run's seed
DEFAULT_TIMEOUT = 3600.0
GRACE = 60.0  # seconds that a message outlives its deadline: an expired one would be counted as an error, not as late

WITHHELD = (
    "What clients report of training and evaluation has no noise, and is left out under differential privacy "
    "('allow-unprotected-metrics')."
)


class FederatedStrategy(RoundLoop):
    """Federated training with the parts of a `Composition`.

    ``round_config`` gives the settings that are sent to clients in a round ("learning-rate", ...). Observers are called
    with each round's record, and then the ``journal`` with the run's state. A ``census`` that has been started already
    is used as it is.
    """

    runs: ClassVar[type[Pace]] = Synchronous

    def __init__(
        self,
        composition: Composition,
        rules: RoundRules | None = None,
        seed: int = 0,
        *,
        census: Census | None = None,
        round_config: Callable[[int], Mapping[str, ConfigRecordValues]] = lambda round: {},
        observers: Sequence[Observer] = (),
        journal: Journal = NOWHERE,
    ) -> None:
        if not isinstance(composition.pace, self.runs):
            raise StrategyError(f"'{composition.name}' runs at another pace: 'strategy_class' says in which class.")
        self.composition = composition
        self.rules = rules or RoundRules()
        self.seed = seed
        self.round_config = round_config
        self.observers = observers
        self.journal = journal
        self.census = census
        self.model = ServerModel(composition, noise=self._noise)
        self.bans = Bans(self.rules.bans)
        self._progress = RoundProgress(0)
        self._letters = Correspondence(ArrayRecord(), [])  # of the phase that was configured last
        self._round: RoundInFlight | None = None
        self._timeout = DEFAULT_TIMEOUT

    def summary(self) -> None:
        """Log the parts of the strategy."""
        parts = ", ".join(repr(part) for part in self.composition.parts)
        logger.info("Strategy %s: %s", self.composition.name, parts)
        if self._withholds:
            logger.info("%s", WITHHELD)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Draw the cohort and write one message per node (or more, by ``clients_per_message``)."""
        population, sampler, simulated = self._population(grid), self.composition.sampler, isinstance(grid, World)
        # A world picks the first to finish itself, and says what became of the others: they are waited for.
        goal = 0 if simulated else sampler.goal
        progress = self._progress = RoundProgress(
            server_round, goal=goal, population=population, simulated=simulated, bans=self.bans
        )
        self._check_promises()
        cohort = self._select(arrays, grid, population)
        weights = self.model.weights_of(arrays)
        progress.withheld = self._withholds
        self.model.account(server_round, self.rules.budget, progress.offered, examples_of(population, cohort))
        progress.privacy = self.model.spending(self.rules.budget)
        self._write_ahead(server_round)
        size, states = weights.layout.size, self.model.states
        shared = child_seed(self.seed, server_round, "", CODEC)
        addends = told_size(self.composition, progress.offered, cohort)
        terms = RoundTerms.of(self.composition, self.rules, addends, states, size, shared, sampler.goal)
        settings = {**config, **self.round_config(server_round), **terms.settings()}
        progress.learning_rate = rate_of(settings)
        sent = self._outgoing("train", server_round, arrays)
        messages = self._write("train", server_round, sent, grid, cohort, settings, terms.beside())
        described = population.described(cohort)
        self._round = RoundInFlight(progress, weights, sent.start, terms, settings, described, self._letters)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies one by one as the iterable yields them, then step the weights.

        Returns (None, None) where the round is skipped: fewer than ``min_replies`` good ones, or a step that would
        leave the finite numbers. The weights then stay.
        """
        if self._round is None:
            raise StrategyError("aggregate_train was called before configure_train.")
        taken, progress = self._round.fold(replies), self._round.progress
        self.model.heard(progress.cohort, [client for client, _, _ in progress.counted])
        return self._step(taken, self._round.weights)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask all clients, or a sample of ``federated_evaluate_clients``, to evaluate on their own test part."""
        ids = self._census(grid).population().ids
        asked = evaluators(ids, self.rules.federated_evaluate_clients, self.seed, server_round)
        sent = self._outgoing("evaluate", server_round + 1, arrays)
        return self._write("evaluate", server_round, sent, grid, asked, dict(config))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the summary of the clients' scores; None where nobody has any."""
        scores = gather(self._letters, replies, server_round, self.rules.limits.max_weight)
        return None if scores is None else MetricRecord(scores.summary())

    # What `start` does in each round.

    def _train(self, grid: Grid, number: int, result: Result, timeout: float, config: ConfigRecord) -> None:
        self.configure_train(number, result.arrays, config, grid)
        with self._progress.phase("train"):
            arrays, metrics = self.aggregate_train(number, self._letters.exchange(grid, timeout))
        self._progress.add_bytes(self._letters.bytes_down, self._letters.bytes_up)
        self._keep(number, result, arrays, metrics)

    def _keep(self, number: int, result: Result, arrays: ArrayRecord | None, metrics: MetricRecord | None) -> None:
        self._progress.seconds["train"] -= self._progress.seconds.get("aggregate", 0.0)
        if arrays is not None and metrics is not None:
            self.arrays = result.arrays = arrays
            result.train_metrics_clientapp[number] = metrics

    def _evaluate(
        self, grid: Grid, number: int, result: Result, timeout: float, config: ConfigRecord
    ) -> ClientScores | None:
        with self._progress.phase("evaluate-federated"):
            self.configure_evaluate(number, result.arrays, config, grid)
            scores = self._scores(grid, timeout)
        if scores is not None:
            result.evaluate_metrics_clientapp[number] = MetricRecord(scores.summary())
        return scores

    def _scores(self, grid: Grid, timeout: float) -> ClientScores | None:
        """Exchange the messages that were written last, and return what the clients say of the model."""
        replies = self._letters.exchange(grid, timeout)
        scores = gather(self._letters, replies, self._progress.round, self.rules.limits.max_weight)
        self._progress.add_bytes(self._letters.bytes_down, self._letters.bytes_up)
        return scores

    # The parts of a round.

    def _select(self, arrays: ArrayRecord, grid: Grid, population: Population) -> list[str]:
        def evaluate(clients: Sequence[str], settings: Mapping[str, ConfigRecordValues]) -> ClientScores | None:
            sent = self._outgoing("evaluate", self._progress.round, arrays)
            self._write("evaluate", self._progress.round, sent, grid, clients, settings)
            return self._scores(grid, self._timeout)

        losses = losses_by(evaluate, self._progress)
        seed = cohort_seed(self.composition, self.seed, self._simulated)
        return select(self.composition.sampler, seed, grid, population, self._progress, losses)

    def _outgoing(self, kind: str, number: int, arrays: ArrayRecord) -> Outgoing:
        """Return what is sent of the weights that the round of this number begins from."""
        weights, downlink = self.model.weights_of(arrays), self.composition.downlink
        if not isinstance(downlink, Differences):
            return self._broadcast(downlink, kind, number, arrays, weights)
        chain = self.model.reference(downlink, weights, number, self.seed)
        return Differing.of(downlink.codec, chain, weights.layout, self.seed, self.round_config(number))

    def _broadcast(
        self, codec: Codec, kind: str, number: int, arrays: ArrayRecord, weights: wire.GlobalWeights
    ) -> Broadcast:
        seed = child_seed(self.seed, number, "", f"{DOWNLINK}-{kind}")
        return Broadcast.of(codec, arrays, weights, seed)

    def _write(
        self,
        kind: str,
        number: int,
        sent: Outgoing,
        grid: Grid,
        clients: Sequence[str],
        settings: Mapping[str, ConfigRecordValues],
        beside: Mapping[str, ArrayRecord] = NOTHING,
    ) -> list[Message]:
        committed = self.model.committed if kind == "train" and self.composition.keeps_client_state else None
        lifetime = self._timeout + GRACE

        def letter(node: int, pack: Sequence[str]) -> Message:
            own = sent.to(pack)
            records = own.record, {**settings, **own.settings}, beside
            return RequestWriter(kind, number, self.seed, *records, lifetime, committed).write(node, pack)

        packs = packs_for(grid, self._census(grid).population(), clients, self.rules.clients_per_message)
        requests = [(letter(node, pack), pack) for node, pack in packs]
        shared = wire.arrays_of(requests[0][0].content, wire.ARRAYS) if requests else ArrayRecord()
        self._letters = Correspondence(shared, requests, sent.start.layout)
        return self._letters.messages

    def _step(self, taken: StepFold, weights: wire.GlobalWeights) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the weights by what was taken in, unless it is too little or the numbers would not stay finite."""
        progress, unconditional = self._progress, self.composition.privacy.unconditional
        why = progress.shortfall(self.rules.min_replies, self.composition.aggregator)
        if why and not (unconditional and progress.offered):
            return progress.skip(why)
        with progress.phase("aggregate"):
            arrays = self.model.step(taken, weights, progress.round, len(progress.population))
        if arrays is None:
            return progress.skip("the server's step would make weights that are not finite ('server-learning-rate')")
        return arrays, MetricRecord(dict(progress.train_metrics()))

    @property
    def _withholds(self) -> bool:
        return self.rules.withhold(self.composition)

    @property
    def _simulated(self) -> bool:
        return self.census is not None and self.census.simulated

    def _write_ahead(self, round: int) -> None:
        """Let it be known for good what is about to be released; a simulation would release the very same again."""
        if self.model.states.ledger and not self._simulated:
            self.journal.begun(round, self.model.states.ledger)

    def _noise(self, round: int) -> np.random.Generator:
        return derived_noise(self.seed)(round) if self._simulated else system_noise(round)

    def _begin(self, grid: Grid) -> None:
        """Prepare a run; raises StrategyError where the strategy cannot run on these clients."""
        clients = len(self._census(grid).population())
        self.composition.sampler.check(clients)
        if why := self.composition.aggregator.shortfall(self._most_updates(clients)):
            raise StrategyError(f"The strategy '{self.composition.name}' cannot run: {why}.")
        self._check_promises()
        privacy = self.composition.privacy
        if privacy.noise_multiplier is not None:
            for sentence in warnings(privacy.noise_multiplier, self.rules.budget.delta, round(clients * privacy.scale)):
                logger.warning("%s", sentence)

    def _check_promises(self) -> None:
        """Raise StrategyError where these clients would be promised what only others, or more of them, are given."""
        if self.census is not None and counts_on_names(self.composition, self.rules.budget):
            self.census.require_names("the privacy of this run goes by how often each client takes part")
        scale = self.composition.privacy.scale
        if scale != 1 and not self._simulated:
            raise StrategyError(
                f"The noise is that of {scale:g} times as many clients as take part ('noise-cohort-size'), so that the "
                "run is refused where clients are real, who need all of their own: leave it at 0, or simulate."
            )

    def _most_updates(self, clients: int) -> int:
        """Return how many updates a step can have at most, of a population of so many clients."""
        return self.composition.sampler.cohort_size(clients)

    def _population(self, grid: Grid) -> Population:
        census = self._census(grid)
        census.refresh()
        return census.population()

    def _census(self, grid: Grid) -> Census:
        if self.census is None:
            self.census = Census(grid, self._timeout)
            self.census.start(min_nodes=1, node_timeout=DEFAULT_TIMEOUT)
        return self.census
