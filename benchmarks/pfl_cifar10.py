"""pfl-research's CIFAR10 set-up in `fedkeras simulate`: rounds per minute, and what memory driver and workers peak at.

    uv run python -m benchmarks.pfl_cifar10

1,000 clients with 50 images of 32x32x3, 50 clients per round, 1 epoch, batch 10, SGD 0.1, the CNN of that benchmark
(two convolutions, dropout): Granqvist et al., "pfl-research: simulation framework for accelerating research in Private
Federated Learning", 2024, section 4.1. The images are made up.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from benchmarks.throughput import round_ends

ROUNDS, WARM_UP = 10, 2
MIB = 1024


class PeakMemory:
    """The largest resident set (KiB) of each process below this one, by its name, while the context is open."""

    def __init__(self) -> None:
        self.peaks: dict[tuple[str, int], int] = {}
        self._over = threading.Event()

    def __enter__(self) -> PeakMemory:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def largest(self, name: str) -> float:
        """Return the peak in MiB of the largest process whose command holds ``name``."""
        return max((peak for (command, _), peak in self.peaks.items() if name in command), default=0) / MIB

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    command = (folder / "cmdline").read_text().replace("\0", " ")
                    status = (folder / "status").read_text()
                except OSError:  # it has ended
                    continue
                if "VmHWM:" in status:
                    self.peaks[command, int(folder.name)] = int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    """Print the figures."""
    settings = {
        "dataset": "benchmarks.workloads:colour_1000",
        "partition": "natural",
        "client-test-fraction": 0.0,
        "model": "cnn-cifar",
        "learning-rate": 0.1,
        "local-epochs": 1,
        "batch-size": 10,
        "num-rounds": WARM_UP + ROUNDS,
        "clients-per-round": 50,
        "evaluate-every": WARM_UP + ROUNDS,
        "federated-evaluate-every": 0,
    }
    started = time.perf_counter()
    with PeakMemory() as memory:
        times = dict(round_ends([f"{key}={value}" for key, value in settings.items()]))
    seconds = (times[WARM_UP + ROUNDS] - times[WARM_UP]) / ROUNDS
    print(f"rounds per minute: {60 / seconds:.1f}; first round after {times[1] - started:.0f} s")
    driver, worker = memory.largest("fedkeras simulate"), memory.largest("ray::ClientWorker")
    print(f"peak memory: driver {driver:.0f} MiB, worker {worker:.0f} MiB")


if __name__ == "__main__":
    main()
