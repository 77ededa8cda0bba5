"""How many workers there are and what each gets: cores, shares of GPUs, memory. Plain arithmetic over plain values.

A worker computes with one thread, so it wants one core. On GPUs, clients of small models leave most of the device idle,
so several workers share one, as far as its memory and the cores go; they are spread over all GPUs of all machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import UserError

MB = 1_000_000
TENSORFLOW_BYTES = 700 * MB  # of a worker with TensorFlow, Keras and a graph or two, measured
GPU_CONTEXT_BYTES = 600 * MB  # that CUDA and its libraries take per process, measured by others and rounded up
MODEL_COPIES = 8  # weights, start, gradients, optimizer's moments, the reply and its sum
ACTIVATIONS_BYTES = 400 * MB  # on a GPU, for a batch of a few dozen examples
MEMORY_SHARE = 0.8  # of a machine's memory that workers may take
MOST_PER_GPU = 8
SHARE_STEP = 10_000  # Ray counts GPUs in ten-thousandths
STORE_SHARE, LEAST_STORE, MOST_STORE = 0.2, 100 * MB, 20_000 * MB


@dataclass(frozen=True)
class Machine:
    """One machine of a cluster: cores, memory in bytes, and GPUs with the memory of each in bytes."""

    cores: float
    memory: int
    gpus: int = 0
    gpu_memory: int = 0


@dataclass(frozen=True)
class Wish:
    """What was asked for. ``workers`` None = choose. ``gpus``: that all workers share; 0 = train on the cores."""

    workers: int | None = None
    gpus: float = 0.0
    most_useful: int | None = None  # workers that can find work: the clients of a round


@dataclass(frozen=True)
class Footprint:
    """What a worker holds in bytes: the model's weights and the data; 0 for what is small or not known."""

    model: int = 0
    data: int = 0

    @property
    def memory(self) -> int:
        """Bytes of the machine's memory that a worker takes."""
        return TENSORFLOW_BYTES + MODEL_COPIES * self.model + self.data

    @property
    def gpu_memory(self) -> int:
        """Bytes of a GPU's memory that a worker takes; examples lie in the machine's."""
        return GPU_CONTEXT_BYTES + ACTIVATIONS_BYTES + MODEL_COPIES * self.model


@dataclass(frozen=True)
class Placement:
    """How many workers, and what Ray reserves for each; ``num_gpus`` may be a share of one."""

    workers: int
    num_cpus: float = 1.0
    num_gpus: float = 0.0


def place(machines: Sequence[Machine], wish: Wish, footprint: Footprint) -> Placement:
    """Return the placement; raises UserError with what was asked, what there is and which option to change."""
    if wish.gpus:
        return _on_gpus(machines, wish, footprint)
    room = sum(min(int(machine.cores), _by_memory(machine, footprint)) for machine in machines)
    if wish.workers is not None:
        _check_memory(machines, wish.workers, footprint)
        cores = sum(machine.cores for machine in machines)
        return Placement(wish.workers, min(1.0, _floor(cores / wish.workers)))
    if room == 0:
        raise UserError(_too_little_memory(machines, 1, footprint))
    return Placement(max(1, min(room, wish.most_useful or room)))


def _on_gpus(machines: Sequence[Machine], wish: Wish, footprint: Footprint) -> Placement:
    """Spread workers over as many GPUs as asked for, evenly: each gets the same share of one."""
    there = sum(machine.gpus for machine in machines)
    if wish.gpus > there:
        raise UserError(f"--gpus is {wish.gpus:g}, but there are {there} GPUs: lower --gpus, or leave it out.")
    least = min(machine.gpu_memory for machine in machines if machine.gpus)
    fit = least // footprint.gpu_memory
    if fit == 0:
        raise UserError(
            f"A worker needs about {_gb(footprint.gpu_memory)} of GPU memory, but a GPU here has {_gb(least)}: choose "
            "a smaller model, or leave --gpus out to train on the cores."
        )
    if wish.workers is not None:
        return _as_asked(machines, wish.workers, wish.gpus, fit, footprint)
    cores = sum(min(int(machine.cores), _by_memory(machine, footprint)) for machine in machines if machine.gpus)
    per_gpu = max(1, min(fit, MOST_PER_GPU, int(cores / wish.gpus)))
    workers = max(1, min(int(per_gpu * wish.gpus), wish.most_useful or per_gpu * there))
    return Placement(workers, min(1.0, _floor(cores / workers)), _share(wish.gpus, workers))


def _as_asked(machines: Sequence[Machine], workers: int, gpus: float, fit: int, footprint: Footprint) -> Placement:
    _check_memory(machines, workers, footprint)
    share = _share(gpus, workers)
    if share < 1 and math.floor(1 / share) > fit:
        raise UserError(
            f"--workers is {workers} on {gpus:g} GPUs, which is {math.floor(1 / share)} on each, but its memory holds "
            f"{fit} of about {_gb(footprint.gpu_memory)}: lower --workers or raise --gpus."
        )
    cores = sum(machine.cores for machine in machines)
    return Placement(workers, min(1.0, _floor(cores / workers)), share)


def _share(gpus: float, workers: int) -> float:
    """Return each worker's share: whole GPUs, or a part that fills whole GPUs without a worker split over two."""
    share = gpus / workers
    return float(math.floor(share)) if share >= 1 else _floor(1 / math.ceil(1 / share))


def _check_memory(machines: Sequence[Machine], workers: int, footprint: Footprint) -> None:
    if sum(_by_memory(machine, footprint) for machine in machines) < workers:
        raise UserError(_too_little_memory(machines, workers, footprint))


def _too_little_memory(machines: Sequence[Machine], workers: int, footprint: Footprint) -> str:
    memory = sum(machine.memory for machine in machines)
    fit = sum(_by_memory(machine, footprint) for machine in machines)
    advice = f"set --workers to {fit} or fewer" if fit else "choose a smaller model or data set, or a larger machine"
    return (
        f"{workers} worker{'s' if workers > 1 else ''} of about {_gb(footprint.memory)} each do not fit into "
        f"{MEMORY_SHARE:.0%} of {_gb(memory)} of memory: {advice}."
    )


def store_bytes(memory: int, shared_memory: int) -> int:
    """Return the size of Ray's object store in bytes, given a machine's memory and what /dev/shm has free."""
    return int(max(LEAST_STORE, min(STORE_SHARE * memory, MEMORY_SHARE * shared_memory, MOST_STORE)))


def _by_memory(machine: Machine, footprint: Footprint) -> int:
    return int(MEMORY_SHARE * machine.memory // footprint.memory)


def _floor(share: float) -> float:
    return math.floor(share * SHARE_STEP) / SHARE_STEP


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
