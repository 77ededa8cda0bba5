"""Print the tables of the experiments named, or of all; with --quick only what of them takes a minute."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.papers import compression, fedavg, fedprox, femnist, heart, robust, server_optimizers
from benchmarks.papers.lab import Lab, use_cached_images
from benchmarks.papers.table import Line, print_table
from simulation.simulate import Simulation

Lines = Callable[[Lab], Iterator[Line]]


@dataclass(frozen=True)
class Experiment:
    """What an experiment prints; ``quick_lines`` where a part of it takes no longer than a minute."""

    title: str
    lines: Lines
    quick_lines: Lines | None = None


EXPERIMENTS: Mapping[str, Experiment] = {
    "heart": Experiment(heart.TITLE, heart.lines, heart.lines),
    "fedavg": Experiment(fedavg.TITLE, fedavg.lines, fedavg.quick_lines),
    "fedavg-cnn": Experiment(fedavg.CNN_TITLE, fedavg.cnn_lines),
    "fedprox": Experiment(fedprox.TITLE, fedprox.lines, fedprox.quick_lines),
    "server-optimizers": Experiment(server_optimizers.TITLE, server_optimizers.lines),
    "robust": Experiment(robust.TITLE, robust.lines, robust.quick_lines),
    "compression": Experiment(compression.TITLE, compression.lines, compression.quick_lines),
    "femnist": Experiment(femnist.TITLE, femnist.lines, femnist.quick_lines),
}


def main() -> None:
    """Print the tables; the exit code is 1 where a line fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(EXPERIMENTS)}; all without")
    parser.add_argument("--quick", action="store_true", help="only what takes no longer than a minute")
    parser.add_argument("--engine", choices=["ray", "inline"], default="ray")
    parser.add_argument("--workers", type=int, help="Ray workers; as many as there are cores without")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"there is no experiment {', '.join(unknown)}, only {', '.join(EXPERIMENTS)}")
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        use_cached_images(Path(folder) / "keras")
        with Simulation(args.workers, engine=args.engine) as simulation:
            lab = Lab(simulation, Path(folder) / "runs")
            for name in args.names or EXPERIMENTS:
                experiment = EXPERIMENTS[name]
                lines = experiment.quick_lines if args.quick else experiment.lines
                if lines is not None:
                    started = time.perf_counter()
                    passed = print_table(experiment.title, lines(lab)) and passed
                    print(f"\n{time.perf_counter() - started:.0f} s")
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main()
