"""The Ray cluster under a simulation: one of its own on this machine, or one that is there already."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from app.errors import UserError
from app.machine import usable_cores
from simulation.resources import MOST_STORE, Machine, Wish, store_bytes

SHARED_MEMORY = Path("/dev/shm")
CONNECT_SECONDS = 5.0
ASSUMED_GPU_MEMORY = 16_000_000_000
QUIET = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would start every worker through uv: 12 s more
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # of 15 by default: whatever else runs here would go first
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the pool itself hides GPUs from workers without a share of one
}
DRIVER_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # Flower's own switch for this is never read
}
WORKER_ENVIRONMENT = {
    **DRIVER_ENVIRONMENT,
    "OMP_NUM_THREADS": "1",
}


SILENT = {"RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}
"""Ray prints the death of every worker, of which the pool tells in its own words, whatever its log level."""


def start(wish: Wish, address: str | None = None, verbose: bool = False) -> None:
    """Start Ray on this machine, or join the cluster at ``address``; does nothing where this process has one already.

    Raises UserError where there is no cluster at the address.
    """
    os.environ.update(QUIET if verbose else {**QUIET, **SILENT})
    import ray

    if ray.is_initialized():
        return
    connect = functools.partial(
        ray.init, log_to_driver=verbose, logging_level=logging.INFO if verbose else logging.ERROR
    )
    if address is not None:
        _join(connect, address)
        return
    here = this_machine()
    connect(
        address="local",  # otherwise Ray joins whatever cluster was started on this machine last
        num_cpus=max(wish.workers or 1, int(here.cores)),
        num_gpus=here.gpus,
        object_store_memory=store_bytes(here.memory, _free_shared_memory()),
        include_dashboard=False,
    )


def _join(connect: Callable[..., object], address: str) -> None:
    """Join a cluster. Ray itself would wait for minutes where nobody listens."""
    try:
        host, colon, port = address.rpartition(":")
        if colon:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        connect(address=address)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"There is no Ray cluster at --ray-address '{address}' ({str(error).splitlines()[0]}): start one with "
            "'ray start --head', or leave the option out."
        ) from None


def stop() -> None:
    """Leave the cluster; one that `start` started ends."""
    import ray

    ray.shutdown()


def this_machine() -> Machine:
    """Return what this machine has."""
    memories = _gpu_memories()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(usable_cores(), memory, len(memories), min(memories, default=0))


def machines() -> list[Machine]:
    """Return the machines of the cluster, as far as Ray knows them: of GPUs elsewhere, it does not know the memory."""
    import ray

    own, found = this_machine(), []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            has = node["Resources"]
            gpus = int(has.get("GPU", 0))
            memory = own.gpu_memory or ASSUMED_GPU_MEMORY
            found.append(Machine(has.get("CPU", 0.0), int(has.get("memory", 0)), gpus, memory if gpus else 0))
    return found


def _gpu_memories() -> list[int]:
    """Ask NVIDIA's driver for the memory of each GPU, in bytes; none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    asked = subprocess.run(query, capture_output=True, text=True, check=False)
    found = [int(line) * 2**20 for line in asked.stdout.splitlines() if line.strip().isdigit()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else found[: len([name for name in visible.split(",") if name.strip()])]


def _free_shared_memory() -> int:
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else MOST_STORE
