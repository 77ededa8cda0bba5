"""A runner without TensorFlow for tests of sweeps: made-up curves of learning, in run directories like real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from app.config import RunConfig
from app.run_directory import RunDirectory
from app.sinks import JsonLines
from simulation.sweep.memory import Memory
from simulation.sweep.plan import Plan, read_plan
from simulation.sweep.study import Configuration, run_sweep
from strategies.federated import Observer
from strategies.records import RoundRecord

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = {"num-rounds": 10, "federated-evaluate-every": 0}


def best_accuracy(config: RunConfig) -> float:
    """Return where the made-up learning ends: best at a learning rate of 0.1, a little better with small batches."""
    return 0.9 - 0.1 * math.log10(config.learning_rate / 0.1) ** 2 - 0.0001 * config.batch_size + 0.001 * config.seed


@dataclass
class FakeRunner:
    """Learns as `best_accuracy` says. ``troubles`` maps a learning rate to what ends such a run before round 3."""

    troubles: Mapping[float, Callable[[], BaseException]] = field(default_factory=dict)
    final: Callable[[RunConfig], float] = best_accuracy
    started: list[tuple[float, int, int]] = field(default_factory=list)
    rounds: int = 0

    def run(self, config: RunConfig, observers: Sequence[Observer] = ()) -> RunDirectory:
        self.started.append((config.learning_rate, config.batch_size, config.seed))
        directory = RunDirectory.create(Path(config.runs_dir), config.name, datetime(2025, 3, 9))
        directory.write_config(config.to_run_config())
        lines = JsonLines(directory.metrics)
        for number in range(config.num_rounds + 1):
            if number == 3 and config.learning_rate in self.troubles:
                raise self.troubles[config.learning_rate]()
            record = self.record(config, number)
            lines.round(record)
            self.rounds += 1
            for observer in observers:
                observer(record)
        lines.close()
        directory.write_status("completed", "", config.num_rounds)
        return directory

    def record(self, config: RunConfig, number: int) -> RoundRecord:
        accuracy = self.final(config) * (1 - math.exp(-number / 3))
        return RoundRecord(
            number, ("0", "1"), ("0", "1"), train={"loss": 1 - accuracy},
            central={"loss": 1 - accuracy, "accuracy": accuracy},
            bytes_down=1000, bytes_up=1000, seconds={"total": 0.5},
        )  # fmt: skip


def plan_of(folder: Path, text: str, name: str = "lr") -> Plan:
    """Return the plan that a sweep file says, with runs of ten rounds in ``folder``."""
    file = folder / f"{name}.toml"
    base = "".join(f"{key} = {value}\n" for key, value in BASE.items() if key not in text)
    file.write_text(text.replace("[base]", f"[base]\n{base}") if "[base]" in text else f"[base]\n{base}{text}")
    return read_plan(file, REPOSITORY, folder)


def sweep(plan: Plan, runner: Any, folder: Path, code: str = "code") -> list[Configuration]:
    """Run a sweep to its end, in ``folder``, with a memory as a new process would have."""
    folder.mkdir(exist_ok=True)
    return list(run_sweep(plan, runner, Memory.open(folder, plan, code), lambda configuration: None))
