"""The loop over rounds: from the first, or from where a run was left, until the last or until no more may begin.

What differs from Flower's own ``Strategy.start``: a run can go on from the state that it had after any of its rounds,
and then does what it would have done; it ends where too many rounds in a row are skipped, or where the next one would
cost more privacy than is left; each round ends with a record and with a state that a journal can keep.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from strategies import wire
from strategies.bans import Bans
from strategies.clock import World, simulated_seconds
from strategies.privacy.budget import BudgetSpentError
from strategies.records import ClientScores, RoundRecord
from strategies.rounds import RoundProgress
from strategies.server_model import ServerModel
from strategies.snapshot import Journal, PaceMemory, Snapshot
from strategies.terms import RoundRules, due

logger = logging.getLogger(__name__)

Observer = Callable[[RoundRecord], None]
CentralEvaluation = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True)
class Plan:
    """What `RoundLoop.start` was given."""

    grid: Grid
    num_rounds: int
    timeout: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: CentralEvaluation | None


class RoundLoop(Strategy):
    """Trains round by round; what is done in a round, its subclasses say.

    ``arrays`` are the weights of the last round that counted, also while `start` is running and after it has raised.
    """

    rules: RoundRules
    model: ServerModel
    bans: Bans
    observers: Sequence[Observer]
    journal: Journal
    arrays: ArrayRecord | None = None
    _progress: RoundProgress
    _resumed: Snapshot | None = None
    _skipped: int = 0  # rounds in a row
    _timeout: float

    def resume(self, state: Snapshot) -> None:
        """Let `start` go on from this state, whatever initial weights it is given."""
        self._resumed = state

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
        final arrays and the metrics of each round that was done here; fewer rounds where the budget of privacy is spent
        before. Raises StrategyError when too many rounds in a row are skipped.
        """
        self._timeout = timeout
        train_config, evaluate_config = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        plan = Plan(grid, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
        result = Result()
        self._begin(grid)
        self.summary()
        if self._resumed is None:
            self._begin_with(initial_arrays, plan, result)
        else:
            self._go_on(self._resumed, plan, result)
        for number in range(self._progress.round + 1, num_rounds + 1):
            if not self._run_round(number, plan, result):
                break
        if (spent := self.model.spending(self.rules.budget)) is not None:
            logger.info("%s", spent.meaning)
        return result

    # What the rounds are.

    @abstractmethod
    def _begin(self, grid: Grid) -> None:
        """Prepare a run; raises StrategyError where the strategy cannot run on these clients."""

    @abstractmethod
    def _train(self, grid: Grid, number: int, result: Result, timeout: float, config: ConfigRecord) -> None:
        """Train for a round, of which ``_progress`` then tells."""

    @abstractmethod
    def _evaluate(
        self, grid: Grid, number: int, result: Result, timeout: float, config: ConfigRecord
    ) -> ClientScores | None:
        """Let clients evaluate the model."""

    @property
    @abstractmethod
    def _withholds(self) -> bool:
        """Whether what clients report would undo what privacy protects."""

    def _remembered(self, grid: Grid) -> PaceMemory:
        """Return what is remembered between rounds besides all that `Snapshot` has a name for."""
        return PaceMemory()

    def _recall(self, memory: PaceMemory, grid: Grid, config: ConfigRecord) -> None:
        """Go on from what `_remembered` returned; all else is as it was then."""

    # How they follow each other.

    def _begin_with(self, initial_arrays: ArrayRecord, plan: Plan, result: Result) -> None:
        self.arrays = result.arrays = initial_arrays
        self.model.weights_of(initial_arrays)
        self._progress = RoundProgress(0)
        self._skipped = 0
        self._finish_round(plan, result, plan.evaluate_fn, None)

    def _go_on(self, state: Snapshot, plan: Plan, result: Result) -> None:
        self.arrays = result.arrays = state.arrays
        self.model.go_on(state.states, state.committed)
        self.bans = Bans.of(self.rules.bans, state.bans)
        self._progress = RoundProgress(state.round)
        self._skipped = state.skipped
        if isinstance(plan.grid, World) and state.clock is not None:
            plan.grid.set_clock(state.clock)
        self._recall(state.pace, plan.grid, plan.train_config)

    def _run_round(self, number: int, plan: Plan, result: Result) -> bool:
        """Return False where the round must not begin, as it would cost more privacy than is left."""
        scores = None
        try:
            self._train(plan.grid, number, result, plan.timeout, plan.train_config)
        except BudgetSpentError as spent:
            if number == 1:
                raise
            logger.warning("The run ends before round %d: %s", number, spent)
            return False
        if not self._withholds and due(number, self.rules.federated_evaluate_every, plan.num_rounds):
            scores = self._evaluate(plan.grid, number, result, plan.timeout, plan.evaluate_config)
        if not self._progress.drawn_empty:
            self._skipped = self._skipped + 1 if self._progress.fruitless else 0
        central = plan.evaluate_fn if due(number, self.rules.evaluate_every, plan.num_rounds) else None
        self._finish_round(plan, result, central, scores)
        self._progress.end_run_if_hopeless(self._skipped, self.rules.max_skipped_rounds)
        return True

    def _finish_round(
        self, plan: Plan, result: Result, evaluate_fn: CentralEvaluation | None, scores: ClientScores | None
    ) -> None:
        progress, central = self._progress, None
        progress.simulated_seconds = simulated_seconds(plan.grid)
        if evaluate_fn is not None:
            with progress.phase("evaluate-central"):
                central = evaluate_fn(progress.round, result.arrays)
        if central is not None:
            result.evaluate_metrics_serverapp[progress.round] = central
        progress.checkpoint, progress.failed_checkpoints = self.journal.saved(), self.journal.failed()
        record = progress.record(None if central is None else wire.scalars(central), scores)
        for observer in self.observers:
            observer(record)
        self.journal.finished(self._snapshot(result.arrays, plan.grid))

    def _snapshot(self, arrays: ArrayRecord, grid: Grid) -> Snapshot:
        progress, model = self._progress, self.model
        bans, committed = self.bans.state(), dict(model.committed)
        pace, clock = self._remembered(grid), progress.simulated_seconds
        return Snapshot(progress.round, arrays, model.states, committed, bans, self._skipped, clock, pace)
