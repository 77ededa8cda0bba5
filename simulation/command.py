"""``fedkeras simulate``: from what was typed to the exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from app.config import RunConfig
from app.console import PlainLines, log_to_console
from app.errors import UserError
from app.federated_run import FederatedRun
from app.flower_run import INTERRUPTED, project_folder
from app.overrides import merged_config, with_absolute_paths
from simulation.progress import Live, live_progress
from simulation.quiet import without_noise
from simulation.simulate import LINES, SILENT, Engine, Simulation
from strategies.errors import StrategyError
from tasks.errors import TaskError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What was typed: ``-c`` arguments in their order, workers (None = choose), GPUs, engine, a cluster to join."""

    overrides: tuple[str, ...] = ()
    workers: int | None = None
    gpus: float = 0.0
    engine: Engine = "ray"
    ray_address: str | None = None
    verbose: bool = False
    folder: Path = field(default_factory=Path.cwd)


def completed(run: FederatedRun) -> int:
    """Return the exit code of a run that was completed."""
    return 0


def run(request: Request, judged: Callable[[FederatedRun], int] = completed) -> int:
    """Train, show how it goes, and return the exit code: 1 failed, 130 interrupted, else what ``judged`` says.

    Raises UserError for anything that can be known to be wrong before the run starts. An exception of a client goes
    through with its stack trace where the engine is ``inline``.
    """
    if request.engine == "inline" and (request.workers or request.gpus or request.ray_address):
        raise UserError("The options --workers, --gpus and --ray-address are for --engine ray: leave them out.")
    config = merged_config(request.overrides, project_folder(), request.folder)
    config = with_absolute_paths(config, request.folder)
    log_to_console(PlainLines())
    engine = Simulation(request.workers, request.gpus, request.engine, request.ray_address, request.verbose)
    try:
        with nullcontext() if request.verbose else without_noise(), engine as simulation:
            return _train(simulation, config, judged)
    except KeyboardInterrupt:
        logger.warning("Interrupted.")
        return INTERRUPTED


def _train(simulation: Simulation, config: RunConfig, judged: Callable[[FederatedRun], int]) -> int:
    """Train one config; a mistake that shows before there is a run directory is the command's, not the run's."""
    try:
        grid = simulation.grid(config)
    except (TaskError, StrategyError) as error:
        raise UserError(str(error)) from None
    try:
        with _progress(config) as live:
            run = simulation.run_on(grid, config, (live,) if live else (), SILENT if live else LINES)
    except (UserError, TaskError, StrategyError) as error:
        logger.error("%s", error)
        return 1
    return judged(run)


def _progress(config: RunConfig) -> AbstractContextManager[Live | None]:
    console = Console(soft_wrap=True)
    return live_progress(console, config.num_rounds) if sys.stdout.isatty() else nullcontext()
