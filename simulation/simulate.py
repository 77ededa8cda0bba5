"""Runs of a federation on virtual clients: one after the other, on one warm engine.

    with Simulation(workers=2) as simulation:
        run = simulation.run(config)

Engines are ``ray`` (a pool of worker processes, on this machine or a cluster) and ``inline`` (this process, which stops
in a client's own stack trace). A config gives bit-for-bit the same model on both, however many workers there are.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from flwr.serverapp import Grid

from app.compose import data_spec
from app.config import RunConfig
from app.federated_run import FederatedRun
from app.output import Output
from app.run_directory import RunDirectory
from app.sinks import Background, LogLine, Sink, file_sinks
from simulation import cluster
from simulation.adversaries.briefing import BriefedGrid
from simulation.adversaries.members import attackers_of
from simulation.adversaries.registry import probes_of
from simulation.audit.auditor import audit
from simulation.audit.canary_client import canaries_of
from simulation.inline import InlineGrid
from simulation.resources import Footprint, Wish, place
from simulation.world import world_grid
from strategies.federated import Observer

if TYPE_CHECKING:
    from simulation.pool import WorkerPool

CLIENT_APP, ATTACKED_APP = "app.client:app", "simulation.attacked_client:app"
AUDITED_APP = "simulation.audit.canary_client:app"
Engine = Literal["ray", "inline"]


def files_and_lines(directory: RunDirectory, logger: logging.Logger, num_rounds: int) -> Sequence[Sink]:
    """Return the sinks of a simulated run: files written in the background, and a log line per round."""
    return Background(file_sinks(directory)), LogLine(logger, num_rounds)


def files_only(directory: RunDirectory, logger: logging.Logger, num_rounds: int) -> Sequence[Sink]:
    """Return the sinks of a run whose rounds something else shows."""
    return (Background(file_sinks(directory)),)


logger = logging.getLogger(__name__)

LINES, SILENT = Output(files_and_lines, checkpoints="meanwhile"), Output(files_only, checkpoints="meanwhile")
ONE_OF_MANY = Output(files_only, page=False, checkpoints="meanwhile")


@dataclass
class Simulation:
    """Runs configs one after the other; what one run has loaded and compiled, the next one finds.

    ``workers`` None = as many as the first run can use; ``gpus`` are shared by all of them. ``address``: of a Ray
    cluster to join. Nothing is started before `__enter__`, and no worker before the first run.
    """

    workers: int | None = None
    gpus: float = 0.0
    engine: Engine = "ray"
    address: str | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        self._pool: WorkerPool | None = None

    def __enter__(self) -> Self:
        """Start Ray, while another thread imports TensorFlow."""
        os.environ.update(cluster.DRIVER_ENVIRONMENT)
        if self.engine == "ray":
            _import_meanwhile("app.local_task")
            cluster.start(Wish(self.workers, self.gpus), self.address, self.verbose)
        else:
            _use_one_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers and leave Ray."""
        if self._pool is not None:
            self._pool.close()
        if self.engine == "ray":
            cluster.stop()

    def run(self, config: RunConfig, observers: Sequence[Observer] = (), output: Output = LINES) -> FederatedRun:
        """Train as the config says, to the end, and return the run, whose ``directory`` holds all that is left of it.

        Each observer is called with each round's record, and may raise to end the run early. Raises UserError,
        TaskError or StrategyError for what the user can mend, also with a run directory that tells it; and UserError
        before there is one, where the workers do not fit.
        """
        return self.run_on(self.grid(config), config, observers, output)

    def run_on(self, grid: Grid, config: RunConfig, observers: Sequence[Observer], output: Output) -> FederatedRun:
        """Train as `run` does on what `grid` has returned for the same config."""
        run = FederatedRun.of(config, observers, output, probes_of(config))
        if attackers := attackers_of(config):
            run.directory.write_attackers(config.attack, attackers)
            logger.info("%d clients attack (%s): %s names them", len(attackers), config.attack, run.directory.attackers)
        if config.canaries:
            audit(run)
        run.run(grid)
        return run

    def grid(self, config: RunConfig) -> Grid:
        """Return the nodes for one run of a config, in the world that it describes.

        Raises UserError where the workers do not fit, or the world, its adversaries or canaries cannot be.
        """
        if attackers := attackers_of(config):
            return world_grid(BriefedGrid(self._nodes(config, ATTACKED_APP), attackers), config)
        if config.canaries:
            canaries_of(config)  # which refuses what cannot be audited
            return world_grid(self._nodes(config, AUDITED_APP), config)
        return world_grid(self._nodes(config, CLIENT_APP), config)

    def _nodes(self, config: RunConfig, client_app: str) -> Grid:
        values = config.to_run_config()
        if self.engine == "inline":
            from simulation.workers import load_app

            grid = InlineGrid.of(load_app(client_app), config.min_nodes, values)
            grid.raise_client_errors = True
            return grid
        from simulation.grid import RayGrid

        pool = self._warm_pool(config)
        return RayGrid(pool, client_app, values, max(config.min_nodes, len(pool.workers)))

    def _warm_pool(self, config: RunConfig) -> WorkerPool:
        """Return the pool; one that is too small for this run is replaced."""
        from simulation.pool import WorkerPool

        wish = Wish(self.workers, self.gpus, config.clients_per_round or config.num_clients)
        placement = place(cluster.machines(), wish, self._footprint(config))
        if self._pool is None or self._pool.placement.workers < placement.workers:
            if self._pool is not None:
                self._pool.close()
            self._pool = WorkerPool(placement, cluster.WORKER_ENVIRONMENT)
        return self._pool

    def _footprint(self, config: RunConfig) -> Footprint:
        """Return what a worker holds: the model, which is built first only where it decides who shares a GPU."""
        data = data_bytes(config.dataset)
        if not self.gpus:  # beside TensorFlow itself most models are small, and the workers can begin to import it now
            return Footprint(data=data)
        from app.local_task import local_task

        model = local_task(config, data_spec(config)).build_model()
        return Footprint(sum(weight.numpy().nbytes for weight in model.weights), data)


def data_bytes(dataset: str) -> int:
    """Return the size of the file that a data set is read from; 0 for one that is named, of which none is large."""
    file = Path(dataset.partition(":")[2].partition("?")[0])
    return file.stat().st_size if file.is_file() else 0


def _import_meanwhile(module: str) -> None:
    threading.Thread(target=importlib.import_module, args=(module,), name="imports", daemon=True).start()


def _use_one_thread() -> None:
    """Compute as the workers do: with more threads, convolutions have other bits."""
    from app.local_task import use_one_thread

    use_one_thread()
