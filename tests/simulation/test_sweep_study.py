"""Running a sweep: what is tried, what halving stops, and that where it was interrupted changes nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from app.config import RunConfig
from app.errors import UserError
from app.run_directory import RunDirectory
from simulation.sweep.memory import Memory, alone
from simulation.sweep.plan import Plan
from simulation.sweep.results import ranked
from simulation.sweep.study import Configuration, run_sweep
from strategies.errors import StrategyError
from strategies.federated import Observer
from tasks.errors import TaskError
from tests.simulation.sweep_runner import FakeRunner, best_accuracy, plan_of, sweep

GRID = "[grid]\nlearning-rate = [0.01, 0.1, 1.0]\nbatch-size = [5, 10]\n"
TRIALS = "[sweep]\ntrials = {}\n"
RANDOM = "[random]\nlearning-rate = { low = 0.001, high = 10.0, log = true }\n"
HALVING = "[grid]\nlearning-rate = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]\nbatch-size = [5, 10]\n"
HALVING += "[sweep]\nseeds = 2\nhalving = { min-rounds = 2, factor = 3 }\n"


def outcomes(configurations: Sequence[Configuration]) -> list[Any]:
    """Return all that must not depend on where a sweep was interrupted: everything but times and folders."""
    return [
        (each.number, dict(each.values), [(one.seed, one.outcome.state, one.outcome.reason) for one in each.ended])
        for each in configurations
    ]


def test_each_combination_runs_with_each_seed_in_the_files_order(tmp_path: Path) -> None:
    runner = FakeRunner()
    found = sweep(plan_of(tmp_path, GRID + "[sweep]\nseeds = 2"), runner, tmp_path / "lr")
    assert runner.started == list(itertools.product([0.01, 0.1, 1.0], [5, 10], [0, 1]))
    assert [each.outcome.state for each in found] == ["completed"] * 6
    for each, one in [(tried, ended) for tried in found for ended in tried.ended]:
        config = RunConfig.from_run_config({**each.values, "seed": one.seed})
        assert one.run is not None
        assert one.run.config["learning-rate"] == each.values["learning-rate"]
        final = one.run.rounds[-1].central
        assert final is not None
        assert math.isclose(final["accuracy"], best_accuracy(config) * (1 - math.exp(-10 / 3)))


def test_random_values_keep_their_bounds_and_their_law(tmp_path: Path) -> None:
    text = RANDOM + "server-learning-rate = { low = 0.5, high = 0.6 }\nlocal-epochs = { low = 1, high = 3 }\n"
    plan = plan_of(
        tmp_path, f"{text}model = {{ choices = ['mlp', 'cnn'] }}\n[sweep]\ntrials = 200\n[base]\nnum-rounds = 1"
    )
    drawn = [each.values for each in sweep(plan, FakeRunner(final=lambda config: 0.5), tmp_path / "lr")]
    logs = (np.log10([float(values["learning-rate"]) for values in drawn]) + 3) / 4
    plain = (np.array([float(values["server-learning-rate"]) for values in drawn]) - 0.5) * 10
    # Both are uniform on [0, 1] but for the rounding to four digits; the seed is fixed, so this passes always or never,
    # and a right program would fail it with probability 0.002.
    assert kstest(logs, "uniform").pvalue > 0.001
    assert kstest(plain, "uniform").pvalue > 0.001
    assert all(0 <= value <= 1 for value in [*logs, *plain])
    assert {values["local-epochs"] for values in drawn} == {1, 2, 3}
    assert {values["model"] for values in drawn} == {"mlp", "cnn"}
    assert all(float(f"{values['learning-rate']:.4g}") == values["learning-rate"] for values in drawn)


def test_each_combination_of_the_grid_meets_the_same_draws(tmp_path: Path) -> None:
    text = "[grid]\nbatch-size = [5, 10, 20]\n" + RANDOM + "[sweep]\ntrials = 6\n"
    found = sweep(plan_of(tmp_path, text), FakeRunner(), tmp_path / "lr")
    by_size: dict[Any, list[Any]] = {}
    for each in found:
        by_size.setdefault(each.values["batch-size"], []).append(each.values["learning-rate"])
    assert len(found) == 18
    assert len(set(by_size[5])) == 6
    assert by_size[5] == by_size[10] == by_size[20]


def test_tpe_looks_closer_where_it_was_good(tmp_path: Path) -> None:
    near = {}
    for sampler in ("random", "tpe"):
        plan = plan_of(tmp_path, RANDOM + f"[sweep]\ntrials = 60\nsampler = '{sampler}'\n", sampler)
        rates = [
            float(each.values["learning-rate"]) for each in sweep(plan, FakeRunner(), tmp_path / f"runs-{sampler}")
        ]
        near[sampler] = sum(abs(math.log10(rate / 0.1)) < 0.5 for rate in rates[20:])
    # 40 uniform draws over 4 decades: 10 of them are expected within half a decade of the best; 25 or more have
    # probability 2e-6.
    assert near["random"] < 25 <= near["tpe"]


def test_another_seed_draws_other_values_and_the_same_seed_the_same(tmp_path: Path) -> None:
    text = RANDOM + "[sweep]\ntrials = 5\n[base]\nseed = "
    first, again, other = (
        [
            each.values["learning-rate"]
            for each in sweep(plan_of(tmp_path, text + str(seed)), FakeRunner(), tmp_path / run)
        ]
        for seed, run in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert first == again
    assert not set(first) & set(other)


@dataclass
class Asha:
    """Successive halving from the paper's words: one of ``factor`` at each rung goes on, of those that came so far."""

    first: int
    factor: int
    num_rounds: int

    def stops(self, curves: Sequence[Sequence[float]]) -> list[int | None]:
        """Return the round after which each curve, in their order, is stopped; None where it is not."""
        rungs = list(itertools.takewhile(lambda rung: rung < self.num_rounds, self._rungs()))
        reached: dict[int, list[float]] = {rung: [] for rung in rungs}
        return [self._stop(curve, reached) for curve in curves]

    def _stop(self, curve: Sequence[float], reached: dict[int, list[float]]) -> int | None:
        for rung, others in reached.items():
            others.append(curve[rung])
            better = sum(value > curve[rung] for value in others)
            if better >= max(1, len(others) // self.factor):
                return rung
        return None

    def _rungs(self) -> Any:
        return (self.first * self.factor**k for k in itertools.count())


@pytest.mark.parametrize(("first", "factor"), [(2, 3), (1, 2), (3, 2), (4, 4)])
def test_halving_stops_what_the_paper_stops(tmp_path: Path, first: int, factor: int) -> None:
    rates = [round(float(rate), 4) for rate in np.random.default_rng(5).uniform(0.01, 10, 40)]
    text = f"[grid]\nlearning-rate = {rates}\n[sweep]\nhalving = {{ min-rounds = {first}, factor = {factor} }}\n"
    runner = FakeRunner()
    found = sweep(plan_of(tmp_path, text), runner, tmp_path / "lr")
    configs = [RunConfig.from_run_config(dict(each.values)) for each in found]
    curves = [[best_accuracy(config) * (1 - math.exp(-n / 3)) for n in range(11)] for config in configs]
    expected = Asha(first, factor, 10).stops(curves)
    assert sorted(each.values["learning-rate"] for each in found) == sorted(rates)
    assert [None if each.outcome.state == "completed" else len(each.ended[0].run.trained) for each in found] == expected  # type: ignore[union-attr]
    assert {each.outcome.state for each in found} == {"completed", "pruned"}
    assert runner.rounds == sum((10 if stop is None else stop) + 1 for stop in expected)


def test_a_stopped_configuration_is_run_with_no_other_seed_and_has_a_reason(tmp_path: Path) -> None:
    found = sweep(plan_of(tmp_path, HALVING), FakeRunner(), tmp_path / "lr")
    stopped = [each for each in found if each.outcome.state == "pruned"]
    assert stopped
    assert all(len(each.ended) == 1 for each in stopped)
    assert all(len(each.ended) == 2 for each in found if each not in stopped)
    assert stopped[0].outcome.reason == "Stopped after round 2: others were better by then."


def test_lower_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, HALVING + "metric = 'loss'")
    found = sweep(plan, FakeRunner(), tmp_path / "lr")
    finals = [each.ended[0].run.rounds[-1].central["loss"] for each in found if each.outcome.state == "completed"]  # type: ignore[union-attr,index]
    assert ranked(plan, found)[0].finals[0] == min(finals)
    assert any(each.outcome.state == "pruned" for each in found)


def test_nan_is_stopped_at_once_and_ranks_last(tmp_path: Path) -> None:
    def final(config: RunConfig) -> float:
        return math.nan if config.learning_rate > 0.05 else best_accuracy(config)

    halved = sweep(plan_of(tmp_path, HALVING), FakeRunner(final=final), tmp_path / "halved")
    assert all(each.outcome.state == "pruned" for each in halved if float(each.values["learning-rate"]) > 0.05)
    plan = plan_of(tmp_path, GRID)
    results = ranked(plan, sweep(plan, FakeRunner(final=final), tmp_path / "whole"))
    assert [math.isnan(result.median) for result in results] == [False] * 2 + [True] * 4


@pytest.mark.parametrize("error", [UserError("a sentence"), TaskError("a sentence"), StrategyError("a sentence")])
def test_what_a_configuration_led_to_is_recorded_and_the_sweep_goes_on(tmp_path: Path, error: Exception) -> None:
    def raised() -> BaseException:
        return error

    plan, runner = plan_of(tmp_path, GRID + "[sweep]\nseeds = 2\n"), FakeRunner({0.1: raised})
    found = sweep(plan, runner, tmp_path / "lr")
    failed = [each for each in found if each.outcome.state == "failed"]
    assert [each.values["learning-rate"] for each in failed] == [0.1, 0.1]
    assert [(len(each.ended), each.outcome.reason) for each in failed] == [(1, "a sentence")] * 2
    assert len(failed[0].ended[0].run.rounds) == 3  # type: ignore[union-attr]
    assert ranked(plan, found)[0].configuration.values["learning-rate"] != 0.1
    again = FakeRunner()
    assert outcomes(sweep(plan, again, tmp_path / "lr")) == outcomes(found)
    assert again.started == []


def test_what_failed_before_it_had_a_directory_is_tried_again_by_the_next_start(tmp_path: Path) -> None:
    class NoRoom(FakeRunner):
        def run(self, config: RunConfig, observers: Sequence[Observer] = ()) -> RunDirectory:
            raise UserError("4 workers do not fit: set --workers to 2 or fewer.")

    plan, runner = plan_of(tmp_path, GRID), FakeRunner()
    found = sweep(plan, NoRoom(), tmp_path / "lr")
    assert {each.outcome.state for each in found} == {"failed"}
    assert {each.outcome.state for each in sweep(plan, runner, tmp_path / "lr")} == {"completed"}
    assert len(runner.started) == len(found)


def test_a_crash_is_recorded_and_tried_again_by_the_next_start(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, GRID)
    found = sweep(plan, FakeRunner({0.1: lambda: OSError("disk full")}), tmp_path / "lr")
    crashed = [each for each in found if each.outcome.state == "crashed"]
    assert [(each.values["learning-rate"], each.outcome.reason) for each in crashed] == [
        (0.1, "OSError: disk full")
    ] * 2
    again = FakeRunner()
    assert {each.outcome.state for each in sweep(plan, again, tmp_path / "lr")} == {"completed"}
    assert again.started == [(0.1, 5, 0), (0.1, 10, 0)]


def test_three_crashes_in_a_row_end_the_sweep(tmp_path: Path) -> None:
    runner = FakeRunner({rate: lambda: OSError("disk full") for rate in (0.1, 1.0)})
    with pytest.raises(OSError, match="disk full"):
        sweep(plan_of(tmp_path, GRID), runner, tmp_path / "lr")
    assert len(runner.started) == 2 + 3


class Killed(BaseException):
    """Nothing catches it: as if the process had ended."""


class MortalRunner(FakeRunner):
    """Ends the process in round 3 of a run."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def record(self, config: RunConfig, number: int) -> Any:
        if len(self.started) == self.last and number == 3:
            raise Killed
        return super().record(config, number)


RESUMED = {
    "grid": GRID + "[sweep]\nseeds = 2\n",
    "halving": HALVING,
    "tpe": "[grid]\nbatch-size = [5, 10]\n" + RANDOM + "[sweep]\ntrials = 12\nsampler = 'tpe'\nseeds = 2\n",
    "all": RANDOM + "[sweep]\ntrials = 15\nsampler = 'tpe'\nhalving = { min-rounds = 4, factor = 2 }\n",
}


@pytest.mark.parametrize("name", RESUMED)
def test_where_a_sweep_is_killed_changes_nothing(tmp_path: Path, name: str) -> None:
    plan, whole = plan_of(tmp_path, RESUMED[name], name), FakeRunner()
    undisturbed = outcomes(sweep(plan, whole, tmp_path / "whole"))
    started: list[Any] = []
    for _ in range(100):
        mortal = MortalRunner(4)
        try:
            resumed = outcomes(sweep(plan, mortal, tmp_path / "resumed"))
        except Killed:
            started += mortal.started[:-1]
            continue
        started += mortal.started
        break
    assert resumed == undisturbed
    assert started == whole.started  # no run that had ended was run again, in whatever process


def test_a_sweep_that_is_through_runs_nothing(tmp_path: Path) -> None:
    plan, again = plan_of(tmp_path, HALVING), FakeRunner()
    found = sweep(plan, FakeRunner(), tmp_path / "lr")
    assert outcomes(sweep(plan, again, tmp_path / "lr")) == outcomes(found)
    assert again.started == []


def test_a_run_whose_directory_is_gone_is_run_again(tmp_path: Path) -> None:
    plan, again = plan_of(tmp_path, GRID), FakeRunner()
    found = sweep(plan, FakeRunner(), tmp_path / "lr")
    (tmp_path / "lr" / found[2].outcome.directory / "metrics.jsonl").unlink()
    sweep(plan, again, tmp_path / "lr")
    assert again.started == [(0.1, 5, 0)]


def grown(tmp_path: Path, before: str, after: str) -> list[tuple[float, int, int]]:
    """Return what is run of a sweep whose file has changed after its end."""
    sweep(plan_of(tmp_path, before), FakeRunner(), tmp_path / "lr")
    runner = FakeRunner()
    sweep(plan_of(tmp_path, after), runner, tmp_path / "lr")
    return runner.started


def test_a_grown_sweep_runs_only_what_is_new(tmp_path: Path) -> None:
    small = "[grid]\nlearning-rate = [0.1]\n[sweep]\nseeds = {}\n"
    assert grown(tmp_path, small.format(1), small.format("[0, 5]")) == [(0.1, 5, 5)]
    wider = "[grid]\nlearning-rate = [1.0, 0.1]\n[sweep]\nseeds = [0, 5]\n"
    assert grown(tmp_path, small.format("[0, 5]"), wider) == [(1.0, 5, 0), (1.0, 5, 5)]


def test_more_trials_go_on_with_the_same_draws(tmp_path: Path) -> None:
    assert len(grown(tmp_path, RANDOM + TRIALS.format(5), RANDOM + TRIALS.format(8))) == 3


def test_a_grown_sweep_with_halving_judges_as_if_it_had_always_been_so(tmp_path: Path) -> None:
    wider = HALVING.replace("[5, 10]", "[5, 10, 20]")
    grown(tmp_path, HALVING, wider)
    found = sweep(plan_of(tmp_path, wider), FakeRunner(), tmp_path / "lr")
    assert len(found) == 18
    assert {each.outcome.state for each in found} == {"completed", "pruned"}


@pytest.mark.parametrize(
    ("after", "part"),
    [
        (GRID.replace("0.01, ", ""), "The key 'learning-rate' of [grid]"),
        ("[grid]\nlearning-rate = [0.01, 0.1, 1.0]\n", "[grid]"),
        (GRID + "local-epochs = [1]\n", "[grid]"),
        (GRID + "[base]\nlocal-epochs = 3\n", "[base]"),
        (GRID + "[random]\nlocal-epochs = { low = 1, high = 2 }\n", "[random]"),
        (GRID + "[sweep]\nmetric = 'loss'\n", "'metric'"),
        (GRID + "[sweep]\nhalving = { min-rounds = 2 }\n", "'halving'"),
        (GRID + "[sweep]\nseeds = [1, 2]\n", "'seeds'"),
    ],
)
def test_a_sweep_that_has_changed_is_refused(tmp_path: Path, after: str, part: str) -> None:
    sweep(plan_of(tmp_path, GRID), FakeRunner(), tmp_path / "lr")
    plan = plan_of(tmp_path, after)
    with pytest.raises(UserError) as raised:
        sweep(plan, FakeRunner(), tmp_path / "lr")
    assert str(raised.value).startswith(
        f"{part} has changed since the runs in '{tmp_path / 'lr'}'. A sweep may only grow"
    )


def test_fewer_trials_and_other_code_are_refused(tmp_path: Path) -> None:
    sweep(plan_of(tmp_path, RANDOM + TRIALS.format(3)), FakeRunner(), tmp_path / "lr")
    with pytest.raises(UserError, match="'trials' has changed"):
        sweep(plan_of(tmp_path, RANDOM + TRIALS.format(2)), FakeRunner(), tmp_path / "lr")
    with pytest.raises(UserError, match="The code of fedkeras has changed"):
        sweep(plan_of(tmp_path, RANDOM + TRIALS.format(3)), FakeRunner(), tmp_path / "lr", code="other")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"plan": {}, "code": "", "runs": {"a": {"b": 1}}}', "\xff"])
def test_a_spoilt_memory_is_told(tmp_path: Path, content: str) -> None:
    plan = plan_of(tmp_path, GRID)
    (tmp_path / "sweep.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"cannot be read .*: delete it to begin the sweep anew"):
        Memory.open(tmp_path, plan, "code")


def test_only_one_process_sweeps_in_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(UserError, match="Another process is running the sweep"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_draw_that_repeats_is_run_and_told_once(tmp_path: Path) -> None:
    plan, runner = (
        plan_of(tmp_path, "[random]\nbatch-size = { choices = [5, 10] }\n[sweep]\ntrials = 12\n"),
        FakeRunner(),
    )
    assert {each.values["batch-size"] for each in sweep(plan, runner, tmp_path / "lr")} == {5, 10}
    assert len(runner.started) == 2


def test_progress_is_told_after_each_run(tmp_path: Path) -> None:
    plan: Plan = plan_of(tmp_path, GRID + "[sweep]\nseeds = 2\n")
    told: list[tuple[int, int]] = []
    folder = tmp_path / "lr"
    folder.mkdir()
    list(
        run_sweep(
            plan, FakeRunner(), Memory.open(folder, plan, ""), lambda each: told.append((each.number, len(each.ended)))
        )
    )
    assert told == [(number, runs) for number in range(6) for runs in (1, 2)]
