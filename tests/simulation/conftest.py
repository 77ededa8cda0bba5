"""Ray, once for all tests of a process, and a pool of two workers on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from simulation import cluster
from simulation.resources import Placement, Wish

if TYPE_CHECKING:
    from simulation.pool import WorkerPool


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    cluster.start(Wish(workers=3))  # a third for pools of one
    yield
    cluster.stop()


@pytest.fixture(scope="module")
def pool(ray_here: None) -> Iterator[WorkerPool]:
    from simulation.pool import WorkerPool

    pool = WorkerPool(Placement(2), cluster.WORKER_ENVIRONMENT)
    yield pool
    pool.close()
