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
        name = config.name or f"{config.dataset}-{config.model}"
        directory = RunDirectory.create(Path(config.runs_dir).expanduser(), name, datetime.now())
        logger.info("%s%s", RUN_DIRECTORY, directory.path)
        run = FederatedRun(config, directory)
        add_exit_handler(run.interrupt)
        with run.status():
            run.execute(grid)
    except (UserError, TaskError, StrategyError) as error:
        logger.error("%s", error)
        raise RunRefused(str(error)) from None
