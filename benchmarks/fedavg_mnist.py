"""Rounds of FedAvg to 97 % on MNIST with the 2NN, beside the FedAvg paper's Table 1 and 2 (McMahan et al. 2017).

    uv run python -m benchmarks.fedavg_mnist [--rows iid-e1 iid-e5 ...]

100 clients, 10 per round, batch 10, learning rate 0.1 (the paper tunes its own), one seed. MNIST comes from the Keras
cache (``KERAS_HOME``). Rows whose paper value is marked M are quoted from memory and only for orientation.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from app.client import app as client_app
from app.config import RunConfig
from app.federated_run import FederatedRun
from app.run_directory import RunDirectory
from simulation.inline import InlineGrid
from strategies.records import RoundRecord
from tasks.training import use_one_thread

TARGET = 0.97


class TargetReachedError(Exception):
    """The target accuracy was reached; the rest of the rounds need not be run."""


@dataclass(frozen=True)
class Row:
    """One line of the table. ``landmark`` is that of an independent re-run, in rounds."""

    name: str
    partition: str
    epochs: int
    paper: str
    landmark: str
    most_rounds: int

    def config(self) -> RunConfig:
        """The paper's setting as a run config."""
        return RunConfig.from_run_config(
            {
                "dataset": "mnist",
                "partition": self.partition,
                "num-clients": 100,
                "clients-per-round": 10,
                "client-test-fraction": 0.0,
                "federated-evaluate-every": 0,
                "model": "mlp",
                "batch-size": 10,
                "local-epochs": self.epochs,
                "learning-rate": 0.1,
                "num-rounds": self.most_rounds,
            }
        )


ROWS = (
    Row("iid-e1", "iid", 1, "87", "50", 87),
    Row("iid-e5", "iid", 5, "-", "-", 87),
    Row("iid-e10", "iid", 10, "34 (M)", "22", 50),
    Row("shards-e1", "shards", 1, "664", "223", 664),
)


def rounds_to_target(row: Row) -> tuple[int | None, float, float]:
    """Return the first round at the target (None if never), the best accuracy and the seconds taken."""
    best: list[float] = [0.0]
    reached: list[int] = []

    def watch(record: RoundRecord) -> None:
        accuracy = (record.central or {}).get("accuracy", 0.0)
        best[0] = max(best[0], accuracy)
        if accuracy >= TARGET:
            reached.append(record.round)
            raise TargetReachedError

    config = row.config()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = FederatedRun(config, RunDirectory(Path(folder)), observers=[watch])
        with contextlib.suppress(TargetReachedError):
            run.execute(InlineGrid.of(client_app, 1, config.to_run_config()))
    return (reached[0] if reached else None), best[0], time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", nargs="*", default=[row.name for row in ROWS])
    wanted = parser.parse_args().rows
    use_one_thread()
    print("| row | partition | local epochs | paper | independent re-run | ours | best accuracy | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        if row.name in wanted:
            number, best, seconds = rounds_to_target(row)
            cells = [
                row.name,
                row.partition,
                row.epochs,
                row.paper,
                row.landmark,
                number,
                f"{best:.4f}",
                f"{seconds:.0f}",
            ]
            print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
