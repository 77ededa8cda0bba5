"""The ServerApp: one run from its config to its report, whatever happens in between.

Mistakes of the user end the run with their sentence and without a traceback; every end leaves a readable run directory.
"""

from __future__ import annotations

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.exit import add_exit_handler

from app.config import RunConfig
from app.console import log_to_console
from app.errors import RunRefused, UserError
from app.federated_run import FederatedRun
from app.world_keys import refuse_world
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
        refuse_world(config)
        run = FederatedRun.of(config)
        add_exit_handler(run.interrupt, run_before_force_exit=True)  # the others have 5 s, which a report can exceed
        run.run(grid)
    except (UserError, TaskError, StrategyError) as error:
        logger.error("%s", error)
        raise RunRefused(str(error)) from None
