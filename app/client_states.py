"""Where the clients of a node keep what they remember from round to round.

In a simulation that is the run directory, which all workers of a machine see, and which is gone with the machine: files
are not synced. In a deployment it is a folder of the node's own, ``--node-config 'state-dir="..."'``, by default the
user's folder for states, with a folder for every run: those of runs that have ended may be deleted.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context

from app.errors import UserError
from app.hosting import hosts_any
from app.run_directory import RunDirectory
from app.user_paths import state_folder, user_path
from strategies.client_state import ClientStates, file_name

STATE_DIR = "state-dir"


def client_states(context: Context, run: str) -> ClientStates:
    """Return the states of the node's clients in a run, named by the path of its directory on the server.

    Raises UserError where a simulation's run directory is not on this machine, or the node's folder is no path.
    """
    if STATE_DIR in context.node_config:
        folder = user_path(str(context.node_config[STATE_DIR]), STATE_DIR)
    elif hosts_any(context.node_config):
        return ClientStates(_in_run_directory(Path(run)), durable=False)
    else:
        folder = state_folder()
    return ClientStates(folder / file_name(Path(run).name))


def _in_run_directory(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(
            f"The clients' states are kept in the run directory '{path}', which this machine does not see: set "
            f"'runs-dir' to a folder that all machines share, or the node's '{STATE_DIR}' in a deployment."
        )
    return RunDirectory(path).client_states
