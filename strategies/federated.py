"""The round loop that all strategies share: a Flower ``Strategy`` made of five parts and a few rules.

Differences from Flower's own ``Strategy.start``: clients with stable ids are sampled instead of nodes; many clients
travel in one message; replies are folded into the aggregate as they arrive, so that the server's memory does not grow
with the cohort; no reply can hurt the run; a round has a deadline and a least number of replies; each round ends with a
record. The four methods of Flower's interface can also be called one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, ConfigRecordValues, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from strategies import wire
from strategies.census import Census
from strategies.composition import Composition
from strategies.errors import StrategyError
from strategies.population import Population
from strategies.records import ClientScores, RoundRecord
from strategies.requests import Correspondence, RequestWriter
from strategies.rounds import RoundProgress
from strategies.samplers import draw
from strategies.scores import Row, client_scores, read_scores
from strategies.seeding import generator
from strategies.terms import RoundRules, RoundTerms
from strategies.updates import State

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 3600.0
GRACE = 60.0  # seconds that a message outlives its deadline: an expired one would be counted as an error, not as late

Observer = Callable[[RoundRecord], None]
CentralEvaluation = Callable[[int, ArrayRecord], MetricRecord | None]


class FederatedStrategy(Strategy):
    """Federated training with the five parts of a `Composition`.

    ``round_config`` gives the settings that are sent to clients in a round ("learning-rate", ...). Observers are called
    with each round's record. A ``census`` that has been started already is used as it is. ``arrays`` are the weights of
    the last round that counted, also while `start` is running and after it has raised.
    """

    def __init__(
        self,
        composition: Composition,
        rules: RoundRules | None = None,
        seed: int = 0,
        *,
        census: Census | None = None,
        round_config: Callable[[int], Mapping[str, ConfigRecordValues]] = lambda round: {},
        observers: Sequence[Observer] = (),
    ) -> None:
        self.composition = composition
        self.rules = rules or RoundRules()
        self.seed = seed
        self.round_config = round_config
        self.observers = observers
        self.census = census
        self.arrays: ArrayRecord | None = None
        self.privacy_state: State = {}
        self.optimizer_state: State = {}
        self._progress = RoundProgress(0)
        self._letters = Correspondence(ArrayRecord(), [])
        self._weights: wire.GlobalWeights | None = None
        self._terms: RoundTerms | None = None
        self._described: Mapping[str, int] = {}
        self._timeout = DEFAULT_TIMEOUT
        self._states_started = False

    def summary(self) -> None:
        """Log the parts of the strategy."""
        parts = ", ".join(repr(part) for part in self.composition.parts)
        logger.info("Strategy %s: %s", self.composition.name, parts)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: CentralEvaluation | None = None,
    ) -> Result:
        """Train for ``num_rounds`` rounds, each waiting at most ``timeout`` seconds for the clients.

        ``evaluate_fn(round, arrays)`` evaluates centrally; it sees round 0, the initial weights, first. Returns the
        final arrays and the metrics of each round. Raises StrategyError when too many rounds in a row are skipped.
        """
        self._timeout = timeout
        self.composition.sampler.check(len(self._census(grid).population()))
        self.summary()
        result = Result()
        self.arrays = result.arrays = initial_arrays
        self._progress = RoundProgress(0)
        self._finish_round(result, evaluate_fn, None)
        skipped = 0  # in a row
        for number in range(1, num_rounds + 1):
            scores = None
            self._train(grid, number, result, timeout, train_config or ConfigRecord())
            if _due(number, self.rules.federated_evaluate_every, num_rounds):
                scores = self._evaluate(grid, number, result, timeout, evaluate_config or ConfigRecord())
            central = evaluate_fn if _due(number, self.rules.evaluate_every, num_rounds) else None
            self._finish_round(result, central, scores)
            skipped = skipped + 1 if self._progress.skipped else 0
            self._stop_if_hopeless(skipped)
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Draw the cohort and write one message per node (or more, by ``clients_per_message``)."""
        census = self._census(grid)
        census.refresh()
        population = census.population()
        cohort = self.composition.sampler.sample(server_round, population.clients, self.seed)
        self._described = {c.id: c.num_examples for c in population.clients if c.num_examples is not None}
        self._weights = wire.read_weights(arrays)
        self._start_states(self._weights.layout.size)
        self._terms = RoundTerms.of(self.composition, self.rules.limits, len(cohort), self.privacy_state)
        settings = {**config, **self.round_config(server_round), **self._terms.settings()}
        rate = settings.get("learning-rate")
        self._progress = RoundProgress(server_round, cohort, float(rate) if isinstance(rate, int | float) else None)
        return self._write("train", server_round, arrays, population, cohort, settings)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies one by one as the iterable yields them, then step the weights.

        Returns (None, None) where the round is skipped: fewer than ``min_replies`` good ones, or a step that would
        leave the finite numbers. The weights then stay.
        """
        progress, weights, composition = self._progress, self._weights, self.composition
        if weights is None or self._terms is None:
            raise StrategyError("aggregate_train was called before configure_train.")
        fold = composition.aggregator.start(weights.layout.size)
        reader = self._terms.reader(weights, self._described)
        for reply, asked in self._letters.answered(replies):
            with progress.phase("aggregate"):
                for outcome in reader.read(reply, asked):
                    progress.take(outcome, composition.aggregator, fold)
        progress.reject_late(self._letters.unanswered())
        if len(progress.weights) < max(1, self.rules.min_replies):
            return self._skip(self._too_few())
        with progress.phase("aggregate"):
            delta, privacy_state = composition.privacy.finish(fold, self.privacy_state, server_round)
            flat, optimizer_state = composition.server_optimizer.step(weights.flat, delta, self.optimizer_state)
        if not np.isfinite(flat).all():
            return self._skip("the server's step would make weights that are not finite ('server-learning-rate')")
        self.privacy_state, self.optimizer_state = privacy_state, optimizer_state
        named = dict(zip(weights.layout.names, weights.layout.unflatten(flat), strict=True))
        return wire.array_record(named), MetricRecord(dict(progress.train_metrics()))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask all clients, or a sample of ``federated_evaluate_clients``, to evaluate on their own test part."""
        population = self._census(grid).population()
        ids = (client.id for client in population.clients)
        wanted = self.rules.federated_evaluate_clients
        asked = draw(ids, wanted, generator(self.seed, server_round, "", "evaluation"))
        return self._write("evaluate", server_round, arrays, population, asked, dict(config))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the summary of the clients' scores; None where nobody has any."""
        scores = self._gather(server_round, replies)
        return None if scores is None else MetricRecord(scores.summary())

    # What `start` does in each round.

    def _train(self, grid: Grid, number: int, result: Result, timeout: float, config: ConfigRecord) -> None:
        self.configure_train(number, result.arrays, config, grid)
        progress = self._progress
        with progress.phase("train"):
            arrays, metrics = self.aggregate_train(number, self._letters.exchange(grid, timeout))
        progress.seconds["train"] -= progress.seconds.get("aggregate", 0.0)
        self._count_bytes()
        if arrays is not None and metrics is not None:
            self.arrays = result.arrays = arrays
            result.train_metrics_clientapp[number] = metrics

    def _evaluate(
        self, grid: Grid, number: int, result: Result, timeout: float, config: ConfigRecord
    ) -> ClientScores | None:
        with self._progress.phase("evaluate-federated"):
            self.configure_evaluate(number, result.arrays, config, grid)
            scores = self._gather(number, self._letters.exchange(grid, timeout))
        self._count_bytes()
        if scores is not None:
            result.evaluate_metrics_clientapp[number] = MetricRecord(scores.summary())
        return scores

    def _finish_round(self, result: Result, evaluate_fn: CentralEvaluation | None, scores: ClientScores | None) -> None:
        number, central = self._progress.round, None
        if evaluate_fn is not None:
            with self._progress.phase("evaluate-central"):
                central = evaluate_fn(number, result.arrays)
        if central is not None:
            result.evaluate_metrics_serverapp[number] = central
        record = self._progress.record(None if central is None else wire.scalars(central), scores)
        for observer in self.observers:
            observer(record)

    def _gather(self, number: int, replies: Iterable[Message]) -> ClientScores | None:
        rows: dict[str, Row] = {}
        for reply, asked in self._letters.answered(replies):
            rows.update(read_scores(reply, asked, self.rules.limits.max_weight))
        if late := self._letters.unanswered():
            logger.warning("Round %d: %d clients did not evaluate in time", number, len(late))
        return client_scores(rows)

    def _skip(self, why: str) -> tuple[None, None]:
        self._progress.skipped = why
        logger.warning("Round %d skipped, the model stays as it is: %s", self._progress.round, why)
        return None, None

    def _too_few(self) -> str:
        good, asked = len(self._progress.weights), len(self._progress.cohort)
        if not asked:
            return "no node with clients was connected"
        needed = max(1, self.rules.min_replies)
        return f"{good} of {asked} clients gave a good reply, but {needed} are needed ('min-replies')"

    def _stop_if_hopeless(self, skipped: int) -> None:
        if skipped and skipped >= self.rules.max_skipped_rounds:
            progress = self._progress
            first = f" (the first: {progress.first_rejection})" if progress.first_rejection else ""
            raise StrategyError(
                f"The run ends after {skipped} skipped rounds in a row ('max-skipped-rounds'), the last because "
                f"{progress.skipped}{first}."
            )

    # The parts of a round.

    def _write(
        self,
        kind: str,
        server_round: int,
        arrays: ArrayRecord,
        population: Population,
        clients: Sequence[str],
        settings: Mapping[str, ConfigRecordValues],
    ) -> list[Message]:
        writer = RequestWriter(kind, server_round, self.seed, arrays, settings, self._timeout + GRACE)
        packs = population.messages(clients, self.rules.clients_per_message)
        self._letters = Correspondence(arrays, [(writer.write(node, pack), pack) for node, pack in packs])
        return self._letters.messages

    def _start_states(self, size: int) -> None:
        if not self._states_started:
            self.privacy_state = self.composition.privacy.init(size)
            self.optimizer_state = self.composition.server_optimizer.init(size)
            self._states_started = True

    def _census(self, grid: Grid) -> Census:
        if self.census is None:
            self.census = Census(grid, self._timeout)
            self.census.start(min_nodes=1, node_timeout=DEFAULT_TIMEOUT)
        return self.census

    def _count_bytes(self) -> None:
        self._progress.bytes_down += self._letters.bytes_down
        self._progress.bytes_up += self._letters.bytes_up


def _due(number: int, every: int, num_rounds: int) -> bool:
    """Every so many rounds, and after the last; never where ``every`` is 0."""
    return every > 0 and (number % every == 0 or number == num_rounds)
