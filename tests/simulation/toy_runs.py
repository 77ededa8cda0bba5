"""Runs of the toy ClientApp, on a pool of workers or inline: the strategy's own loop, without the app around it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord
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
        seed=11,
        observers=[records.append, *observers],
    )
    result = strategy.start(grid, toy_app.start_arrays(size), rounds, timeout)
    return digest(result.arrays), records


def digest(arrays: ArrayRecord) -> str:
    """Return the same text for the same weights only, to the bit."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays.to_numpy_ndarrays())).hexdigest()
