"""One run of a federation, as the server sees it: from the config to the model, the metrics and the report."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecordValues
from flwr.serverapp import Grid

from app.central_evaluation import Probe, central_evaluation
from app.checkpoints import Checkpoints
from app.compose import composition, data_spec, learning_rate, round_rules
from app.config import RunConfig
from app.errors import RunPruned, RunRefused, UserError
from app.example_privacy import ExamplePrivacy
from app.fitting_nodes import gather_nodes
from app.journals import RunJournal
from app.log_filter import RUN_DIRECTORY
from app.only_one import only_one
from app.output import DEPLOYED, Keeping, Output, Watcher
from app.recording import Recording
from app.report.build import write_report
from app.resume import directory_to_resume, is_finished, left_by
from app.run_directory import RunDirectory, RunState
from app.units import percent
from app.user_paths import user_path
from strategies import wire
from strategies.errors import StrategyError
from strategies.fedbuff import strategy_class
from strategies.federated import FederatedStrategy, Observer
from strategies.records import RoundRecord
from strategies.snapshot import Snapshot
from strategies.updates import State
from tasks.errors import TaskError

if TYPE_CHECKING:
    from tasks.task import Task

logger = logging.getLogger(__name__)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log an error of what is left behind at the end of a run, which must not hide how the run itself ended."""
    try:
        yield
    except UserError as error:
        logger.warning("%s: %s", what, error)
    except Exception:
        logger.exception("%s", what)


@dataclass
class FederatedRun:
    """A run in progress. ``rounds`` counts the finished ones; ``last`` is the record of the latest central evaluation.

    ``observers`` are told of each round after the run's own sinks, and may raise to end the run. The accuracy on what
    ``probes`` make of the task's data is reported under their names, beside that on the central test set. What the
    ``watcher`` remembers goes into the checkpoints. ``at_end`` is called once the model is saved, before the report is
    written.
    """

    config: RunConfig
    directory: RunDirectory
    observers: Sequence[Observer] = ()
    output: Output = DEPLOYED
    probes: Mapping[str, Probe] = field(default_factory=dict)
    watcher: Watcher | None = None
    at_end: Sequence[Callable[[], None]] = ()
    rounds: int = 0
    last: RoundRecord | None = None
    resumed_after: list[int] = field(default_factory=list)  # rounds, once for each process but the first
    _strategy: FederatedStrategy | None = None
    _examples: ExamplePrivacy | None = None
    _recording: Recording | None = None
    _open: threading.Lock = field(default_factory=threading.Lock)  # taken, for good, by whoever closes the run

    @classmethod
    def of(
        cls,
        config: RunConfig,
        observers: Sequence[Observer] = (),
        output: Output = DEPLOYED,
        probes: Mapping[str, Probe] = MappingProxyType({}),
    ) -> FederatedRun:
        """Make a run with a directory of its own, or with that which is to be gone on in.

        Raises UserError where there can be none, or the config is not that of its run.
        """
        if config.resume:
            directory = directory_to_resume(config)
        else:
            runs_dir = user_path(config.runs_dir, "runs-dir")
            directory = RunDirectory.create(runs_dir, run_name(config), datetime.now())
        logger.info("%s%s", RUN_DIRECTORY, directory.path)
        return cls(config, directory, observers, output, probes)

    def run(self, grid: Grid) -> None:
        """Train from the first round to the report, whatever happens in between; raises as `execute` does.

        A run that is finished already stays as it is.
        """
        if self.config.resume and is_finished(self.directory, self.config):
            logger.info("The run is finished: nothing is left to do. To train on, raise 'num-rounds'.")
            return
        another = f"Another process is at work on the run in {self.directory.path}."
        with only_one(self.directory.path, another), self.status():
            self.execute(grid)

    def execute(self, grid: Grid) -> None:
        """Train and save everything. Raises UserError, TaskError or StrategyError for what the user can mend."""
        config = self.config
        parts = composition(config)
        census = gather_nodes(grid, config, self.directory, lambda: self.task)
        checkpoints = Checkpoints(self.directory.checkpoints, config.checkpoints_kept)
        left = left_by(self.directory, checkpoints, parts, round_rules(config).budget, census)
        share = 1.0 if parts.keeps_on_nodes else config.checkpoint_share  # clients are told what they could go back to
        keeping = Keeping(checkpoints, config.checkpoint_every, share, left.round if left else None, self.watcher)
        recording = self._recording = Recording.of(config, self.directory, self.output, keeping)
        observers = [self._stop_if_closed, *(sink.round for sink in recording.sinks), self._count, *self.observers]
        self._examples = ExamplePrivacy.of(config, census, lambda: self.ledger)
        self._strategy = strategy_class(parts)(
            parts,
            round_rules(config),
            config.seed,
            census=census,
            round_config=partial(self._settings, recording.journal if parts.keeps_on_nodes else None),
            observers=observers if self._examples is None else [self._examples.tell(observers)],
            journal=recording.journal,
        )
        try:
            if left is not None:
                self._go_on(left)
            evaluate = central_evaluation(self.task, self.probes) if config.evaluate_every else None
            result = self._strategy.start(
                grid, self._initial_arrays(), config.num_rounds, config.round_timeout, evaluate_fn=evaluate
            )
            if self.rounds < config.num_rounds:  # for which there is no other reason
                recording.monitoring.alerts.budget_spent(self.rounds + 1)
        finally:
            recording.close()
        self._save_model(result.arrays)
        for finish in self.at_end:
            finish()

    def _settings(self, journal: RunJournal | None, number: int) -> dict[str, ConfigRecordValues]:
        """Return what clients are told in a round; where they keep something, also for which run and how far back."""
        told: dict[str, ConfigRecordValues] = {wire.LEARNING_RATE: learning_rate(self.config).at(number)}
        if journal is not None:
            told |= {wire.RUN: str(self.directory.path), wire.CHECKPOINTS: journal.kept() or [0]}
        return told

    def _go_on(self, left: Snapshot) -> None:
        if wire.read_weights(left.arrays).layout != wire.read_weights(self._initial_arrays()).layout:
            raise UserError(f"The model '{self.config.model}' has changed since the run began: start a new run.")
        assert self._strategy is not None
        self._strategy.resume(left)
        if self.watcher is not None:
            self.watcher.go_on(left.watched, left.arrays)
        self.rounds = left.round
        self.resumed_after.append(left.round)
        self.directory.write_status("running", "", self.rounds, self.resumed_after)
        logger.info("Resumed after round %d.", left.round)

    @cached_property
    def task(self) -> Task:
        """The run config's task in this process; the first use imports TensorFlow."""
        from app.local_task import local_task

        return local_task(self.config, data_spec(self.config))

    @property
    def weights(self) -> ArrayRecord | None:
        """The weights after the last round that counted; None before the first are made."""
        return self._strategy.arrays if self._strategy else None

    @property
    def ledger(self) -> State:
        """What has been released under differential privacy (`strategies.privacy.ledger`)."""
        return self._strategy.model.states.ledger if self._strategy else {}

    @contextmanager
    def status(self) -> Iterator[None]:
        """Keep ``status.json`` true, and write the report at the end, whatever the end is."""
        self.resumed_after = list(self.directory.read_status().get("resumed-after", []))
        self.directory.write_status("running", "", 0, self.resumed_after)
        try:
            yield
        except RunPruned as pruned:
            self._close("pruned", str(pruned))
            raise
        except (UserError, TaskError, StrategyError) as error:
            self._close("failed", str(error))
            raise
        except Exception as error:
            self._close("failed", f"{type(error).__name__}: {error}")
            raise
        except BaseException:
            self.interrupt()
            raise
        self._close("completed", self._outcome())
        logger.info("%s", self._outcome())

    def interrupt(self) -> None:
        """Close the run directory of a run that is stopped from outside; does nothing once the run has ended."""
        self._close("interrupted", "The run was stopped before its end.")

    def _close(self, state: RunState, message: str) -> None:
        if self._open.acquire(blocking=False):
            self.directory.write_status(state, message, self.rounds, self.resumed_after)
            if state in ("completed", "pruned"):  # nobody will go on from them
                shutil.rmtree(self.directory.client_states, ignore_errors=True)
            with _logged("The model so far was not saved"):
                if state != "completed" and self.rounds and self._strategy and self._strategy.arrays:
                    self._save_model(self._strategy.arrays)
            with _logged("The table of what each client's examples have paid was not written"):
                if self._examples is not None:
                    self._examples.write(self.directory.example_privacy)
            with _logged("The report was not written"):
                if self.output.page and self.directory.metrics.exists():
                    logger.info("Report: %s", write_report([self.directory.path]))
            if self._recording is not None:
                self._recording.ended(state)

    def _outcome(self) -> str:
        central = self.last.central if self.last else None
        accuracy = f"central accuracy {percent(central['accuracy'])}, " if central else ""
        return f"Finished {self.rounds} rounds: {accuracy}run directory {self.directory.path}"

    def _stop_if_closed(self, record: RoundRecord) -> None:
        """End a run whose directory was closed from outside: Flower takes up to 30 s to end a process it stopped."""
        if self._open.locked():
            raise RunRefused("The run was stopped.")

    def _count(self, record: RoundRecord) -> None:
        self.rounds = record.round
        if record.central is not None:
            self.last = record

    def _initial_arrays(self) -> ArrayRecord:
        from app.local_task import initial_arrays

        return initial_arrays(self.task)

    def _save_model(self, arrays: ArrayRecord) -> None:
        model = self.task.build_model()
        model.set_weights(wire.read_weights(arrays).arrays)
        self.directory.save_model(model)


def run_name(config: RunConfig) -> str:
    """Return the run's name: as given, or what is learnt by which model; of a path, only what the file is called."""
    kind, colon, place = config.dataset.partition(":")
    is_path = colon and kind in ("npz", "tfrecord")
    data = Path(place.partition("?")[0]).stem if is_path else config.dataset
    return config.name or f"{data}-{config.model}"
