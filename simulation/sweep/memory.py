"""What a sweep remembers on the disk: which runs have ended, and how, so that it goes on where it was stopped.

A run is looked up by its whole config but for its name and folder. So what a grown sweep file asks for again is not run
again, and a run that was stopped half-way, which nobody has noted as ended, is run anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from app import atomic, plain_json
from app.config import RunConfig
from app.errors import UserError
from app.only_one import only_one
from simulation.sweep.plan import Plan

State = Literal["completed", "pruned", "failed", "crashed"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``directory`` is its folder's name within the sweep's, "" where it has left none.

    "failed" is what the configuration itself has led to; "crashed" is any other error, and is tried again by the next
    start of the sweep. ``seconds`` is the time that the run took, with its start and its end.
    """

    state: State
    reason: str
    directory: str
    seconds: float


@dataclass
class Memory:
    """The file ``sweep.json`` of a sweep's folder; it is replaced as a whole after each run."""

    folder: Path
    plan: Mapping[str, Any]
    code: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, plan: Plan, code: str) -> Memory:
        """Return what the folder remembers, or a new memory where there is none.

        ``code`` is the fingerprint of the running code. Raises UserError where the folder's sweep is another one: one
        that the plan has not only grown from, or one that other code has run.
        """
        memory = cls(folder, plan.as_json(), code)
        file = folder / "sweep.json"
        if not file.is_file():
            return memory
        old_plan, old_code, memory.outcomes = _read(file)
        changed = _changed(old_plan, memory.plan) or ("The code of fedkeras" if old_code != code else "")
        if changed:
            raise UserError(
                f"{changed} has changed since the runs in '{folder}'. A sweep may only grow: by values in [grid], by "
                "'trials' and by 'seeds'. Give the sweep another name, or delete that folder to begin anew."
            )
        return memory

    def find(self, config: RunConfig) -> Outcome | None:
        """Return how such a run has ended; None where it has not, has crashed, or has lost its directory.

        Nor does one count that failed before it had a directory: it found no room for workers, or not a file.
        """
        outcome = self.outcomes.get(_identity(config))
        if outcome is None or outcome.state == "crashed" or not outcome.directory:
            return None
        lost = outcome.state != "failed" and not (self.folder / outcome.directory / "metrics.jsonl").is_file()
        return None if lost else outcome

    def add(self, config: RunConfig, outcome: Outcome) -> None:
        """Remember how a run has ended."""
        self.outcomes[_identity(config)] = outcome
        runs = {identity: asdict(outcome) for identity, outcome in self.outcomes.items()}
        text = plain_json.dumps({"plan": self.plan, "code": self.code, "runs": runs}, indent=2)
        atomic.write_text(self.folder / "sweep.json", text + "\n")


def alone(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder for this process. Raises UserError where another one is sweeping in it."""
    return only_one(folder, f"Another process is running the sweep in '{folder}': wait for its end.")


def _identity(config: RunConfig) -> str:
    values = {key: value for key, value in config.to_run_config().items() if key not in ("name", "runs-dir")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read(file: Path) -> tuple[Mapping[str, Any], str, dict[str, Outcome]]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        runs = {identity: Outcome(**outcome) for identity, outcome in known["runs"].items()}
        return known["plan"], known["code"], runs
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"'{file}' cannot be read ({error}): delete it to begin the sweep anew.") from None


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say which part of the sweep file is not merely grown; "" where none is."""
    for part in ("base", "random", "metric", "sampler", "halving"):
        if old[part] != new[part]:
            return f"[{part}]" if part in ("base", "random") else f"'{part}'"
    if set(old["grid"]) != set(new["grid"]):
        return "[grid]"
    for key, values in old["grid"].items():
        if not all(value in new["grid"][key] for value in values):
            return f"The key '{key}' of [grid]"
    if new["trials"] < old["trials"]:
        return "'trials'"
    return "" if set(old["seeds"]) <= set(new["seeds"]) else "'seeds'"
