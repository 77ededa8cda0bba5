"""Runs a sweep: asks Optuna for configurations, runs each with its seeds, and stops early what halving drops.

Early stopping is Optuna's ``SuccessiveHalvingPruner``: Li et al., "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020, section 3 (ASHA), here with one run at a time. It differs from there in what it judges: the run
with the first seed. What that seed lets through is run to the end with all seeds; what it does not, with no other.

Nothing depends on where a sweep was stopped: Optuna's study lives in memory only, and is told everything anew, in the
same order, from the runs that the sweep remembers.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import Trial, TrialState

from app.config import RunConfig, Value
from app.errors import RunPruned, UserError
from app.report.reading import Round, Run, read_round, read_run
from simulation.sweep.memory import Memory, Outcome
from simulation.sweep.plan import Assignment, Plan
from simulation.sweep.proposals import distributions, new_study, order_of, sampler_of, written_down
from strategies.errors import StrategyError
from strategies.federated import Observer
from strategies.records import RoundRecord
from tasks.errors import TaskError

logger = logging.getLogger(__name__)

MAX_CRASHES = 3


class Runner(Protocol):
    """What trains one run after another: `simulation.simulate.Simulation`, which keeps its workers warm."""

    def run(self, config: RunConfig, observers: Sequence[Observer] = ()) -> object:
        """Train to the end and leave a run directory in the config's ``runs-dir``; what an observer raises ends it."""


@dataclass(frozen=True)
class Ended:
    """One run of a configuration. ``run`` is what its directory holds; None where there is nothing to read."""

    seed: int
    outcome: Outcome
    run: Run | None


@dataclass(frozen=True)
class Configuration:
    """What was tried, and its runs in the order of the seeds: one that did not complete is the last."""

    number: int
    values: Assignment
    ended: tuple[Ended, ...]

    @property
    def outcome(self) -> Outcome:
        """How the last of its runs ended, and so the whole of it."""
        return self.ended[-1].outcome


Progress = Callable[[Configuration], None]


def run_sweep(plan: Plan, runner: Runner, memory: Memory, progress: Progress) -> Iterator[Configuration]:
    """Yield each configuration once it is through. Runs that the memory knows are not run again.

    ``progress`` is told of a configuration after each of its runs. Errors that a configuration has led to are part of
    its outcome; after three crashes in a row the last one is raised.
    """
    study, seen = new_study(plan), set[tuple[Value, ...]]()
    attempt = _Attempt(plan, runner, memory)
    spaces = distributions(plan)
    for number, (draw, combination) in enumerate(order_of(plan)):
        study.sampler = sampler_of(plan, draw)
        study.enqueue_trial(combination)
        trial = study.ask(spaces)
        values = {key: written_down(plan.random.get(key), trial.params[key]) for key in plan.keys}
        configuration = attempt.configuration(number, values, trial, progress)
        _tell(study, trial, plan, configuration)
        if (identity := tuple(values.values())) not in seen:
            seen.add(identity)
            yield configuration


@dataclass
class _Judge:
    """Tells Optuna of each round in which the metric was measured, and ends a run that is not worth going on."""

    plan: Plan
    trial: Trial
    num_rounds: int
    seen: int = -1

    def __call__(self, record: RoundRecord) -> None:
        self.see(read_round(record.to_json()))

    def see(self, record: Round) -> None:
        value = self.plan.metric.measure(record)
        if value is not None and record.number > self.seen:
            self.seen = record.number
            self.trial.report(value, step=record.number)
            if record.number < self.num_rounds and self.trial.should_prune():
                raise RunPruned(f"Stopped after round {record.number}: others were better by then.")


@dataclass
class _Attempt:
    """Runs configurations, or remembers them."""

    plan: Plan
    runner: Runner
    memory: Memory
    crashes: int = 0

    def configuration(self, number: int, values: Assignment, trial: Trial, progress: Progress) -> Configuration:
        ended: list[Ended] = []
        for seed in self.plan.seeds:
            ended.append(self._run(number, values, seed, None if ended else trial))
            progress(Configuration(number, values, tuple(ended)))
            if ended[-1].outcome.state != "completed":
                break
        return Configuration(number, values, tuple(ended))

    def _run(self, number: int, values: Assignment, seed: int, trial: Trial | None) -> Ended:
        named = self.plan.config(values, seed, f"trial-{number}-seed-{seed}").to_run_config()
        config = RunConfig.from_run_config({**named, "runs-dir": str(self.memory.folder)})
        judge = _Judge(self.plan, trial, config.num_rounds) if trial and self.plan.halving else None
        known = self.memory.find(config)
        if known is not None:
            run = _read(self.memory.folder, known)
            if judge is None or self._stands(known, run, judge):
                return Ended(seed, known, run)
        outcome = self._train(config, judge)
        self.memory.add(config, outcome)
        return Ended(seed, outcome, _read(self.memory.folder, outcome))

    def _stands(self, known: Outcome, run: Run | None, judge: _Judge) -> bool:
        """Show the judge what is known of a run; a run that was stopped stands only if it would be stopped again.

        One that was not stopped stands in any case: a grown sweep may judge differently, but it is paid for.
        """
        stopped = False
        for record in run.rounds if run is not None else ():
            try:
                judge.see(record)
            except RunPruned:
                stopped = True
        return stopped or known.state != "pruned"

    def _train(self, config: RunConfig, judge: _Judge | None) -> Outcome:
        folder, began = Path(config.runs_dir), time.perf_counter()
        before = set(folder.iterdir())
        state, reason = self._ending(config, judge)
        made = [path.name for path in folder.iterdir() if path not in before and path.is_dir()]
        return Outcome(state, reason, made[0] if made else "", time.perf_counter() - began)

    def _ending(self, config: RunConfig, judge: _Judge | None) -> tuple[Any, str]:
        try:
            self.runner.run(config, [] if judge is None else [judge])
        except RunPruned as pruned:
            state, reason = "pruned", str(pruned)
        except (UserError, TaskError, StrategyError) as error:
            state, reason = "failed", str(error)
        except Exception as error:
            self.crashes += 1
            if self.crashes == MAX_CRASHES:
                raise
            logger.exception("The run %s crashed; the sweep goes on", config.name)
            return "crashed", f"{type(error).__name__}: {error}"
        else:
            state, reason = "completed", ""
        self.crashes = 0
        return state, reason


def _tell(study: optuna.Study, trial: Trial, plan: Plan, configuration: Configuration) -> None:
    """Tell Optuna the median, or that it was nothing: a failed configuration is to be avoided, as a stopped one is."""
    finals = [plan.metric.final(each.run) for each in configuration.ended if each.run is not None]
    value = plan.metric.median(finals)
    if configuration.outcome.state == "completed" and not math.isnan(value):
        study.tell(trial, value)
    else:
        study.tell(trial, state=TrialState.PRUNED)


def _read(folder: Path, outcome: Outcome) -> Run | None:
    directory = folder / outcome.directory
    if not outcome.directory or not (directory / "metrics.jsonl").is_file():
        return None
    return read_run(directory)
