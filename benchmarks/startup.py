"""How long a simulation takes to start: cold beside TensorFlow's own import, and warm, as the runs of a sweep do.

    uv run python -m benchmarks.startup [--repeats 3]

Cold is `fedkeras simulate` from the shell to the line of its initial model, with two workers; TensorFlow's import is a
Python that does nothing else. Warm is the second run in one `Simulation`, from the call to the first record.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from app.config import RunConfig
from benchmarks.throughput import round_ends
from simulation.simulate import ONE_OF_MANY, Simulation
from strategies.records import RoundRecord

LEAN = "from tasks.lean_keras import lean_keras\nwith lean_keras():\n    import tensorflow, keras"


def processor_seconds(program: str) -> float:
    """Return the processor time of a process that runs this program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tensorflow_import() -> float:
    """Return the seconds of a process that imports TensorFlow and Keras."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tensorflow, keras"], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def cold() -> float:
    """Return the seconds from the command to the evaluation of the initial model."""
    started = time.perf_counter()
    times = dict(round_ends(["num-rounds=1"], "--workers", "2"))
    return times[0] - started


def warm() -> list[float]:
    """Return, for runs on one pool, the seconds until the first record and until the run is over."""
    config = {"num-rounds": 3, "federated-evaluate-every": 0}
    found = []
    with tempfile.TemporaryDirectory() as folder, Simulation(workers=2) as simulation:
        for seed in range(4):
            first: list[float] = []

            def watch(record: RoundRecord, first: list[float] = first) -> None:
                first.append(time.perf_counter())

            started = time.perf_counter()
            values = {**config, "runs-dir": folder, "learning-rate": 0.1 + 0.05 * seed}
            simulation.run(RunConfig.from_run_config(values), [watch], ONE_OF_MANY)
            found.append(first[0] - started)
    return found[1:]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    programs = ("import tensorflow, keras", LEAN)
    plain, lean = (statistics.median(processor_seconds(program) for _ in range(repeats)) for program in programs)
    print(f"processor time of importing TensorFlow and Keras: {plain:.1f} s; as our processes do: {lean:.1f} s")
    pairs = [(tensorflow_import(), cold()) for _ in range(repeats)]
    own, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"import of TensorFlow and Keras: {own:.1f} s; fedkeras simulate to its initial model: {ours:.1f} s")
    print("warm runs, to the first record: " + ", ".join(f"{seconds:.2f} s" for seconds in warm()))


if __name__ == "__main__":
    main()
