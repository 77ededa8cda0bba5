"""Clients trained per second: `fedkeras simulate` beside Flower's stock quickstart and a bare TensorFlow loop.

    uv run python -m benchmarks.throughput [--models mlp cnn] [--repeats 3] [--without-stock]

600 clients with 100 images of 28x28 each, 20 per round, 1 epoch, batch 20, SGD 0.05. Ours runs as users run it, with
admission, metrics, exact sums and a run directory; the clock is that of the lines it prints, from the end of the
warm-up rounds to the end of the last. Each repeat measures bare and ours one after the other; medians and the ratio of
pairs. The stock run is slower by so much that a few rounds of it, once, say enough.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.flower_commands import environment
from app.superlink import scripts
from benchmarks.bare_tensorflow import clients_per_second as bare
from benchmarks.workloads import images_600

COHORT = 20
ROOT = Path(__file__).resolve().parents[1]
ROUNDS = {"mlp": 200, "cnn": 40}
WARM_UP = {"mlp": 20, "cnn": 5}


def simulated(model: str, rounds: int, warm_up: int, *more: str, cohort: int = COHORT) -> float:
    """Return the clients per second of `fedkeras simulate` after its first ``warm_up`` rounds."""
    settings = {
        "dataset": "benchmarks.workloads:images_600",
        "partition": "natural",
        "client-test-fraction": 0.0,
        "model": f"benchmarks.workloads:{model}",
        "learning-rate": 0.05,
        "local-epochs": 1,
        "batch-size": 20,
        "num-rounds": warm_up + rounds,
        "clients-per-round": cohort,
        "evaluate-every": warm_up + rounds,
        "federated-evaluate-every": 0,
    }
    times = dict(round_ends([f"{key}={value}" for key, value in settings.items()] + list(more)))
    return cohort * rounds / (times[warm_up + rounds] - times[warm_up])


def round_ends(overrides: list[str], *options: str) -> Iterator[tuple[int, float]]:
    """Run `fedkeras simulate` and yield each round with the time (s) at which its line came."""
    arguments = [part for override in overrides for part in ("-c", override)]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(scripts() / "fedkeras"), "simulate", "-c", f"runs-dir={folder}", *arguments, *options]
        started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert started.stdout is not None
        printed = []
        for line in started.stdout:
            printed.append(line)
            if found := re.match(r"round +(\d+)/", line):
                yield int(found[1]), time.perf_counter()
        if started.wait() != 0:
            raise RuntimeError("fedkeras simulate failed:\n" + "".join(printed[-20:]))


def stock(model: str, rounds: int) -> float:
    """Return the clients per second of the quickstart on `flwr run`, after its first round."""
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app"
        shutil.copytree(ROOT / "benchmarks" / "quickstart", app)
        pool = images_600().pool
        np.save(Path(folder) / "data-x.npy", pool.x)
        np.save(Path(folder) / "data-y.npy", pool.y)
        config = f'model="{model}" data="{folder}/data-x.npy" num-rounds={rounds + 1} clients-per-round={COHORT}'
        federation = "num-supernodes=600 client-resources-num-cpus=1 init-args-num-cpus=2"
        home = {
            "FLWR_HOME": f"{folder}/home",
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": "39791",
            "FLWR_LOCAL_CONTROL_API_PORT": "39793",
        }
        command = ["flwr", "run", ".", "--stream", "--run-config", config, "--federation-config", federation]
        try:
            ended = subprocess.run(
                command, cwd=app, env={**environment(), **home}, capture_output=True, text=True, check=False
            )
        finally:
            subprocess.run(["pkill", "-f", "39791"], check=False)
    lines = re.findall(r"TIMED (\d+) (\d+) ([\d.]+)", ended.stdout)
    if len(lines) != rounds + 1 or any(good != str(COHORT) for _, good, _ in lines):
        raise RuntimeError(f"The stock run failed:\n{ended.stdout[-3000:]}{ended.stderr[-1000:]}")
    return COHORT * rounds / (float(lines[-1][2]) - float(lines[0][2]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(ROUNDS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-stock", action="store_true")
    wanted = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print("| model | stock (clients/s) | bare | fedkeras simulate | ours / stock | ours / bare |")
    print("|---|---|---|---|---|---|")
    for model in wanted.models:
        rounds, warm_up, pairs = ROUNDS[model], WARM_UP[model], []
        for _ in range(wanted.repeats):
            pairs.append((bare(model, 2, rounds, warm_up, COHORT), simulated(model, rounds, warm_up)))
            print("pair", *(f"{value:.1f}" for value in pairs[-1]), file=sys.stderr, flush=True)
        ours = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(own / other for other, own in pairs)
        slow = None if wanted.without_stock else stock(model, 3)
        cells = [model, f"{slow:.2f}" if slow else "-", f"{statistics.median(p[0] for p in pairs):.0f}", f"{ours:.0f}"]
        print("| " + " | ".join([*cells, f"{ours / slow:.0f}" if slow else "-", f"{ratio:.2f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
