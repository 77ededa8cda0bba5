"""What a node pays for each message of a deployment before it trains: a fresh process, which imports all anew.

    uv run python -m benchmarks.edge_cost [--repeats 5]

Each step is a Python that imports what the ones above it do and a little more; the candidates alternate. Processor
seconds, user and system, which a loaded machine changes less than the clock.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence

FLOWER = "import flwr.supernode.cli.flwr_clientapp"
OURS = f"{FLOWER}; import app.client"
TENSORFLOW = f"{OURS}; import tensorflow, keras"

STEPS = {
    "Python alone": "",
    "Flower's flwr-clientapp": FLOWER,
    "our ClientApp": OURS,
    "TensorFlow and Keras": TENSORFLOW,
}


def processor_seconds(program: str) -> float:
    """Return the processor time of a fresh Python that runs this."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(programs: Sequence[str], repeats: int) -> list[float]:
    """Return the median of each program, all run in turn."""
    rounds = [[processor_seconds(program) for program in programs] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def main() -> None:
    """Print what each step takes, and what it adds to the one before."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    before = 0.0
    for name, seconds in zip(STEPS, medians(list(STEPS.values()), parser.parse_args().repeats), strict=True):
        print(f"{name}: {seconds:.2f} s, {seconds - before:.2f} s more")
        before = seconds


if __name__ == "__main__":
    main()
