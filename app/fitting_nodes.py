"""Who takes part in a run: nodes whose code and data fit the server's, and what the run tells of their clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from flwr.serverapp import Grid

from app.config import RunConfig
from app.errors import UserError
from app.fingerprint import code_fingerprint, code_location, user_modules
from app.resume import note_versions
from app.run_directory import RunDirectory
from strategies.census import Census
from strategies.describe import properties_in_common

if TYPE_CHECKING:
    from tasks.data import FederatedData
    from tasks.task import Task

OTHER_CODE = (
    "If a SuperLink of another project or checkout is running on this machine, stop it with 'fedkeras down' and start "
    "the run again; in a deployment, restart the SuperNodes with the same version of the code."
)


def gather_nodes(grid: Grid, config: RunConfig, directory: RunDirectory, task: Callable[[], Task]) -> Census:
    """Wait for the nodes, make the task meanwhile, and write down which code runs, and whom the nodes bring.

    Raises UserError where the nodes' data are of another kind than the server's, and as `Census.start` does.
    """
    settings = config.to_run_config()
    directory.write_config({**settings, "resume": ""})
    fingerprint = code_fingerprint(user_modules(settings))
    note_versions(directory, fingerprint, code_location())
    census = Census(
        grid, config.round_timeout, fingerprint, code_location(), OTHER_CODE, max_clients=config.max_node_clients
    )
    census.start(config.min_nodes, config.node_timeout, meanwhile=task)
    data = task().data
    check_nodes(census, data, config.dataset)
    write_population(directory, census, data)
    return census


def check_nodes(census: Census, data: FederatedData, dataset: str) -> None:
    """Raise UserError where the nodes' examples are not of the kind that the server's data set ``dataset`` holds."""
    common = properties_in_common(list(census.nodes.values()))
    if (shape := common.get("input-shape", list(data.input_shape))) != list(data.input_shape):
        raise UserError(
            f"The nodes' examples have the shape {shape!r}, but the server's data set '{dataset}' has "
            f"{list(data.input_shape)}: set 'dataset' to one of the same shape as the nodes' data."
        )
    if (classes := common.get("num-classes", data.num_classes)) != data.num_classes:
        raise UserError(
            f"The nodes' data have {classes!r} classes, but the server's data set '{dataset}' has "
            f"{data.num_classes}: set 'dataset' to one with the same classes, or, where the nodes' data only lack "
            "some, write '?classes=N' after their 'data-path'."
        )


def write_population(directory: RunDirectory, census: Census, data: FederatedData) -> None:
    """Write who could be asked, and which labels they hold where the server knows it."""
    clients = census.population().clients
    counts: Mapping[str, list[int]] = {}
    if set(data.client_ids) == {client.id for client in clients}:
        counts = dict(zip(data.client_ids, data.label_counts().tolist(), strict=True))
    directory.write_population(clients, counts or None)
