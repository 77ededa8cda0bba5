"""Where the experiments run: `simulation.simulate.Simulation` with run directories that nobody keeps, and the data."""

from __future__ import annotations

import contextlib
import os
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.config import RunConfig, Value
from app.errors import RunPruned
from simulation.simulate import ONE_OF_MANY, Simulation
from strategies.records import RoundRecord

REPOSITORY = Path(__file__).resolve().parents[2]
Keys = dict[str, Value]


def data_folder() -> Path:
    """Return the folder of real data sets; raises SystemExit where there is none."""
    folder = Path(os.environ.get("FEDKERAS_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"There is no data at {folder}: set FEDKERAS_TEST_DATA.")
    return folder


def use_cached_images(home: Path) -> None:
    """Let Keras, before it is imported, find (Fashion-)MNIST in a copy of the data's cache: it writes there too."""
    cache = data_folder() / "keras_cache"
    if "KERAS_HOME" not in os.environ and cache.is_dir():
        shutil.copytree(cache, home, dirs_exist_ok=True)
        os.environ["KERAS_HOME"] = str(home)


def preset(name: str) -> Keys:
    """Return the keys of a file of presets/."""
    return dict(tomllib.loads((REPOSITORY / "presets" / f"{name}.toml").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Lab:
    """Runs configs on one warm engine; ``runs`` is where the run directories are made."""

    simulation: Simulation
    runs: Path

    def records(
        self, keys: Keys, enough: Callable[[list[RoundRecord]], bool] = lambda records: False
    ) -> list[RoundRecord]:
        """Train by these keys and return the records from round 0 on, until they are ``enough``."""
        records: list[RoundRecord] = []

        def watch(record: RoundRecord) -> None:
            records.append(record)
            if enough(records):
                raise RunPruned("The experiment has seen enough.")

        config = RunConfig.from_run_config({**keys, "runs-dir": str(self.runs)})
        with contextlib.suppress(RunPruned):
            self.simulation.run(config, [watch], ONE_OF_MANY)
        return records


def accuracy(record: RoundRecord) -> float:
    """Return the accuracy on the central test set."""
    return (record.central or {})["accuracy"]
