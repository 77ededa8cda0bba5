"""One run of a federation, as the server sees it: from the config to the model, the metrics and the report."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid

from app.compose import composition, data_spec, learning_rate, round_rules
from app.config import RunConfig
from app.errors import RunPruned, RunRefused, UserError
from app.fingerprint import code_fingerprint, code_location, user_modules
from app.log_filter import RUN_DIRECTORY
from app.report.build import write_report
from app.run_directory import RunDirectory, RunState
from app.sinks import Sink, run_sinks
from app.units import percent
from app.user_paths import user_path
from strategies import wire
from strategies.census import Census
from strategies.describe import properties_in_common
from strategies.errors import StrategyError
from strategies.fedbuff import strategy_class
from strategies.federated import CentralEvaluation, FederatedStrategy, Observer
from strategies.records import RoundRecord
from strategies.updates import State
from tasks.data import ClientData, FederatedData
from tasks.errors import TaskError

if TYPE_CHECKING:
    from tasks.task import Task

logger = logging.getLogger(__name__)

OTHER_CODE = (
    "If a SuperLink of another project or checkout is running on this machine, stop it with 'fedkeras down' and start "
    "the run again; in a deployment, restart the SuperNodes with the same version of the code."
)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log an error of what is left behind at the end of a run, which must not hide how the run itself ended."""
    try:
        yield
    except Exception:
        logger.exception("%s", what)


Probe = Callable[[FederatedData], ClientData]


class MakeSinks(Protocol):
    """What opens the sinks of a run, as `app.sinks.run_sinks` does."""

    def __call__(self, directory: RunDirectory, logger: logging.Logger, num_rounds: int) -> Sequence[Sink]:
        """Return the sinks."""


@dataclass(frozen=True)
class Output:
    """What a run tells while it lasts, and whether it ends with a page of its own (a sweep has one for all)."""

    make_sinks: MakeSinks = run_sinks
    page: bool = True


@dataclass
class FederatedRun:
    """A run in progress. ``rounds`` counts the finished ones; ``last`` is the record of the latest central evaluation.

    ``observers`` are told of each round after the run's own sinks, and may raise to end the run. The accuracy on what
    ``probes`` make of the task's data is reported under their names, beside that on the central test set.
    """

    config: RunConfig
    directory: RunDirectory
    observers: Sequence[Observer] = ()
    output: Output = Output()
    probes: Mapping[str, Probe] = field(default_factory=dict)
    rounds: int = 0
    last: RoundRecord | None = None
    _strategy: FederatedStrategy | None = None
    _open: threading.Lock = field(default_factory=threading.Lock)  # taken, for good, by whoever closes the run

    @classmethod
    def of(
        cls,
        config: RunConfig,
        observers: Sequence[Observer] = (),
        output: Output = Output(),
        probes: Mapping[str, Probe] = MappingProxyType({}),
    ) -> FederatedRun:
        """Make a run with a directory of its own; raises UserError where there can be none."""
        runs_dir = user_path(config.runs_dir, "runs-dir")
        directory = RunDirectory.create(runs_dir, run_name(config), datetime.now())
        logger.info("%s%s", RUN_DIRECTORY, directory.path)
        return cls(config, directory, observers, output, probes)

    def run(self, grid: Grid) -> None:
        """Train from the first round to the report, whatever happens in between; raises as `execute` does."""
        with self.status():
            self.execute(grid)

    def execute(self, grid: Grid) -> None:
        """Train and save everything. Raises UserError, TaskError or StrategyError for what the user can mend."""
        config = self.config
        parts = composition(config)
        self.directory.write_config(config.to_run_config())
        fingerprint = code_fingerprint(user_modules(config.to_run_config()))
        self.directory.write_versions(fingerprint, code_location())
        census = Census(grid, config.round_timeout, fingerprint, code_location(), OTHER_CODE)
        census.start(config.min_nodes, config.node_timeout, meanwhile=lambda: self.task)
        self._check_nodes(census)
        self._write_population(census)
        sinks = self.output.make_sinks(self.directory, logger, config.num_rounds)
        named = {wire.RUN: str(self.directory.path)} if parts.keeps_client_state else {}
        self._strategy = strategy_class(parts)(
            parts,
            round_rules(config),
            config.seed,
            census=census,
            round_config=lambda number: {wire.LEARNING_RATE: learning_rate(config).at(number), **named},
            observers=[self._stop_if_closed, *(sink.round for sink in sinks), self._count, *self.observers],
        )
        try:
            result = self._strategy.start(
                grid, self._initial_arrays(), config.num_rounds, config.round_timeout, evaluate_fn=self._evaluation()
            )
        finally:
            for sink in sinks:
                sink.close()
        self._save_model(result.arrays)

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
        self.directory.write_status("running")
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
            self.directory.write_status(state, message, self.rounds)
            if state in ("completed", "pruned"):  # nobody will go on from them
                shutil.rmtree(self.directory.client_states, ignore_errors=True)
            with _logged("The model so far was not saved"):
                if state != "completed" and self.rounds and self._strategy and self._strategy.arrays:
                    self._save_model(self._strategy.arrays)
            with _logged("The report was not written"):
                if self.output.page and self.directory.metrics.exists():
                    logger.info("Report: %s", write_report([self.directory.path]))

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

    def _check_nodes(self, census: Census) -> None:
        common = properties_in_common(list(census.nodes.values()))
        data = self.task.data
        if (shape := common.get("input-shape", list(data.input_shape))) != list(data.input_shape):
            raise UserError(
                f"The nodes' examples have the shape {shape!r}, but the server's data set '{self.config.dataset}' has "
                f"{list(data.input_shape)}: set 'dataset' to one of the same shape as the nodes' data."
            )
        if (classes := common.get("num-classes", data.num_classes)) != data.num_classes:
            raise UserError(
                f"The nodes' data have {classes!r} classes, but the server's data set '{self.config.dataset}' has "
                f"{data.num_classes}: set 'dataset' to one with the same classes, or, where the nodes' data only lack "
                "some, write '?classes=N' after their 'data-path'."
            )

    def _write_population(self, census: Census) -> None:
        clients = census.population().clients
        counts: Mapping[str, list[int]] = {}
        if set(self.task.data.client_ids) == {client.id for client in clients}:
            counts = dict(zip(self.task.data.client_ids, self.task.data.label_counts().tolist(), strict=True))
        self.directory.write_population(clients, counts or None)

    def _initial_arrays(self) -> ArrayRecord:
        from app.local_task import initial_arrays

        return initial_arrays(self.task)

    def _evaluation(self) -> CentralEvaluation | None:
        data, trainer = self.task.data, self.task.trainer
        test = data.central_test()
        if len(test) == 0 or self.config.evaluate_every == 0:
            return None
        probes = {name: examples(data) for name, examples in self.probes.items()}

        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
            weights = wire.read_weights(arrays).arrays
            result = trainer.evaluate(weights, test)
            found = {name: trainer.evaluate(weights, examples).accuracy for name, examples in probes.items()}
            return MetricRecord({"loss": result.loss, "accuracy": result.accuracy, **found})

        return evaluate

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
