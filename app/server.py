"""The ServerApp: one run from its config to its report, whatever happens in between.

Mistakes of the user end the run with their sentence and without a traceback; every end leaves a readable run directory.
"""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.exit import add_exit_handler

from app.config import RunConfig
from app.console import log_to_console
from app.errors import RunRefused, UserError
from app.federated_run import FederatedRun
from app.log_filter import RUN_DIRECTORY
from app.run_directory import RunDirectory
from app.user_paths import user_path
from strategies.errors import StrategyError
from tasks.errors import TaskError

logger = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run config describes."""
    log_to_console()
    try:
        config = RunConfig.from_run_config(context.run_config)
        directory = RunDirectory.create(user_path(config.runs_dir, "runs-dir"), run_name(config), datetime.now())
        logger.info("%s%s", RUN_DIRECTORY, directory.path)
        run = FederatedRun(config, directory)
        add_exit_handler(run.interrupt, run_before_force_exit=True)  # the others have 5 s, which a report can exceed
        with run.status():
            run.execute(grid)
    except (UserError, TaskError, StrategyError) as error:
        logger.error("%s", error)
        raise RunRefused(str(error)) from None


def run_name(config: RunConfig) -> str:
    """Return the run's name: as given, or what is learnt by which model; of a path, only what the file is called."""
    kind, colon, place = config.dataset.partition(":")
    is_path = colon and kind in ("npz", "tfrecord")
    data = Path(place.partition("?")[0]).stem if is_path else config.dataset
    return config.name or f"{data}-{config.model}"
