"""Runs of the toy ClientApp, on a pool of workers or inline: the strategy's own loop, without the app around it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from simulation.grid import RayGrid
from simulation.inline import InlineGrid
from simulation.pool import WorkerPool
from strategies import registry
from strategies.federated import FederatedStrategy, Observer
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.simulation import toy_app

APP = "tests.simulation.toy_app:app"
SEED = 11


def inline(config: Mapping[str, Any] | None = None, nodes: int = 2) -> InlineGrid:
    return InlineGrid.of(toy_app.app, nodes, dict(config or {}))


def on(pool: WorkerPool, config: Mapping[str, Any] | None = None, nodes: int = 0) -> RayGrid:
    return RayGrid(pool, APP, dict(config or {}), nodes)


def train(
    grid: Grid,
    rounds: int = 3,
    cohort: int = 0,
    timeout: float = 60.0,
    observers: tuple[Observer, ...] = (),
    size: int = 1000,
    **rules: Any,
) -> tuple[str, list[RoundRecord]]:
    """Train and return a digest of the model, and the records of the rounds."""
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {"clients-per-round": cohort}),
        RoundRules(**rules),
        seed=SEED,
        observers=[records.append, *observers],
    )
    result = strategy.start(grid, toy_app.start_arrays(size), rounds, timeout)
    return digest(result.arrays), records


def digest(arrays: ArrayRecord) -> str:
    """Return the same text for the same weights only, to the bit."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays.to_numpy_ndarrays())).hexdigest()


def ask(grid: RayGrid, kind: str = "query.pid") -> list[dict[str, int]]:
    """Return what each node answers, in the nodes' order."""
    messages = [Message(RecordDict({"config": ConfigRecord({})}), node, kind) for node in grid.get_node_ids()]
    replies = sorted(grid.send_and_receive(messages, timeout=60), key=lambda reply: reply.metadata.src_node_id)
    return [dict(reply.content["metrics"]) for reply in replies]  # type: ignore[arg-type, misc]


def answering(grid: RayGrid) -> set[int]:
    """Return the processes that answer for the nodes now."""
    return {answer["pid"] for answer in ask(grid)}


def until_all_answer(grid: RayGrid, workers: int) -> set[int]:
    """Return the processes of all workers, once the last one that died is replaced, or of those there in a minute."""
    deadline = time.monotonic() + 60
    while len(pids := answering(grid)) < workers and time.monotonic() < deadline:
        time.sleep(0.05)
    return pids
