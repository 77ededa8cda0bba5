"""What comes out of a sweep: medians and ranks by hand, CSV files that others read, and one page that needs nothing."""

from __future__ import annotations

import csv
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from app.config import RunConfig
from app.errors import UserError
from simulation.sweep.charts import SHOWN, curves_chart, keys_of, median_curve, parallel_chart, slice_chart
from simulation.sweep.heat import heat_chart
from simulation.sweep.importance import LEAST, importance
from simulation.sweep.metrics import METRICS
from simulation.sweep.page import render
from simulation.sweep.plan import Plan
from simulation.sweep.results import Result, best_of, middle_run, ranked, write_results
from simulation.sweep.scales import scale_of
from strategies.privacy.spending import Spending
from tests.app.test_report import Page, flat
from tests.simulation.sweep_runner import REPOSITORY, FakeRunner, best_accuracy, plan_of, sweep

TEXT = "[grid]\nlearning-rate = [0.01, 0.1, 1.0]\nbatch-size = [5, 10]\n[sweep]\nseeds = 3\n"
ACCURACY, LOSS = METRICS["accuracy"], METRICS["loss"]


def noisy(config: RunConfig) -> float:
    """Return accuracies whose median over the seeds 0, 1, 2 is that of seed 2."""
    return best_accuracy(config) + {0: -0.05, 1: 0.05, 2: 0.0}.get(config.seed, 0.0)


def results_of(
    tmp_path: Path, text: str = TEXT, runner: FakeRunner | None = None, name: str = "lr"
) -> tuple[Plan, list[Result]]:
    plan = plan_of(tmp_path, text, name)
    return plan, ranked(plan, sweep(plan, runner or FakeRunner(final=noisy), tmp_path / name))


@pytest.mark.parametrize(
    ("values", "higher", "lower"),
    [
        ([0.1, 0.3, 0.2], 0.2, 0.2),
        ([0.1, 0.3], 0.2, 0.2),
        ([math.nan, 0.3, 0.2], 0.2, 0.3),
        ([math.nan, math.nan, 0.2], math.nan, math.nan),
        ([math.nan, 0.2], math.nan, math.nan),
        ([math.inf, 0.2, 0.3], 0.3, 0.3),
        ([], math.nan, math.nan),
    ],
)
def test_the_median_counts_nan_as_the_worst(values: list[float], higher: float, lower: float) -> None:
    assert_allclose(ACCURACY.median(values), higher)
    assert_allclose(LOSS.median(values), lower)


def test_order_is_best_first_with_nan_last() -> None:
    values = [0.1, math.nan, 0.9, math.inf, -math.inf]
    assert str(sorted(values, key=ACCURACY.order)) == "[inf, 0.9, 0.1, -inf, nan]"
    assert str(sorted(values, key=LOSS.order)) == "[-inf, 0.1, 0.9, inf, nan]"


def test_ranks_medians_and_spreads_by_hand(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path)
    learnt = 1 - math.exp(-10 / 3)
    first = results[0]
    assert first.configuration.values == {"learning-rate": 0.1, "batch-size": 5}
    assert_allclose(first.finals, np.array([0.8495, 0.9505, 0.9015]) * learnt)
    assert_allclose(first.median, 0.9015 * learnt)
    assert first.spread is not None
    assert_allclose(first.spread, (0.8495 * learnt, 0.9505 * learnt))
    assert middle_run(plan, first).seed == 2
    assert (first.rounds, first.spent("bytes"), first.spent("seconds")) == (10, 22000.0, 5.5)
    assert [result.median for result in results] == sorted((result.median for result in results), reverse=True)


def test_the_best_is_never_one_that_failed_or_was_stopped(tmp_path: Path) -> None:
    failing = {0.1: lambda: UserError("diverged")}
    _, results = results_of(tmp_path, runner=FakeRunner(failing, noisy))
    best = best_of(results)
    assert best is not None
    assert best.configuration.values["learning-rate"] != 0.1
    assert [result.state for result in results] == ["completed"] * 4 + ["failed"] * 2
    everything = dict.fromkeys((0.01, 0.1, 1.0), failing[0.1])
    assert best_of(results_of(tmp_path, runner=FakeRunner(everything), name="none")[1]) is None
    assert best_of([]) is None
    unknown = FakeRunner(final=lambda config: math.nan)
    assert best_of(results_of(tmp_path, runner=unknown, name="nan")[1]) is None


def test_the_csv_files_hold_all_there_is(tmp_path: Path) -> None:
    failing = FakeRunner({1.0: lambda: UserError('a, b\nand "c"')}, noisy)
    plan, results = results_of(tmp_path, runner=failing)
    write_results(tmp_path, plan, results)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert (rows[0]["learning-rate"], rows[0]["batch-size"], rows[0]["state"]) == ("0.1", "5", "completed")
    assert float(rows[0]["accuracy-median"]) == results[0].median
    assert rows[-1]["reason"] == 'a, b\nand "c"'
    with (tmp_path / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 4 * 3 + 2
    assert all((tmp_path / "lr" / run["directory"] / "metrics.jsonl").is_file() for run in runs)
    assert [run["rounds"] for run in runs if run["state"] == "failed"] == ["2", "2"]


def test_best_toml_is_the_config_of_the_median_run(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path)
    write_results(tmp_path, plan, results)
    config = RunConfig.from_run_config(tomllib.loads((tmp_path / "best.toml").read_text()))
    assert (config.learning_rate, config.batch_size, config.seed, config.name) == (0.1, 5, 2, "lr-best")
    assert config.runs_dir == str(tmp_path / "runs")
    ran = middle_run(plan, results[0]).run
    assert ran is not None
    assert {**ran.config, "name": "", "runs-dir": ""} == {**config.to_run_config(), "name": "", "runs-dir": ""}
    write_results(tmp_path, plan, [])
    assert not (tmp_path / "best.toml").exists()


def test_the_curve_of_a_configuration_is_the_median_at_the_rounds_all_seeds_have(tmp_path: Path) -> None:
    _, results = results_of(tmp_path)
    runs = results[0].runs
    middle, low, high = median_curve(runs, ACCURACY.measure, "rounds")
    learnt = 1 - np.exp(-np.arange(11) / 3)
    assert_allclose(middle.x, np.arange(11))
    assert_allclose(middle.y, 0.9015 * learnt)
    assert_allclose(low, 0.8495 * learnt)
    assert_allclose(high, 0.9505 * learnt)
    assert_allclose(median_curve(runs, ACCURACY.measure, "bytes")[0].x, 2000 * np.arange(1, 12))
    assert_allclose(median_curve(runs, ACCURACY.measure, "seconds")[0].x, 0.5 * np.arange(1, 12))
    assert len(median_curve([], ACCURACY.measure, "rounds")[0]) == 0
    assert len(median_curve(runs, METRICS["clients-loss"].measure, "rounds")[0]) == 0


def test_axes_place_listed_values_side_by_side_and_ranges_where_they_lie(tmp_path: Path) -> None:
    text = "[grid]\nbatch-size = [20, 5, 10]\nclient-optimizer = ['sgd', 'adam']\n[random]\n"
    text += "learning-rate = { low = 0.01, high = 100.0, log = true }\nserver-learning-rate = { low = 1, high = 3 }\n"
    plan = plan_of(tmp_path, text)
    size, optimizer, rate, server = (scale_of(plan, key) for key in plan.keys)
    assert [size.place(value) for value in (5, 10, 20)] == [0, 1, 2]
    assert size.ticks == ((0.0, "5"), (1.0, "10"), (2.0, "20"))
    assert [optimizer.place(value) for value in ("sgd", "adam")] == [0, 1]
    assert_allclose([rate.share(rate.place(value)) for value in (0.01, 1.0, 100.0)], [0, 0.5, 1], atol=1e-12)
    assert {text for _, text in rate.ticks} <= {"0.01", "0.1", "1", "10", "100"}
    assert server.share(server.place(2.0)) == 0.5
    assert scale_of(plan_of(tmp_path, "[grid]\nbatch-size = [5]", "one"), "batch-size").share(0.0) == 0.5


def test_the_first_eight_have_colours_and_the_others_are_grey(tmp_path: Path) -> None:
    rates = [round(0.01 * rate, 2) for rate in range(1, 13)]
    _, results = results_of(tmp_path, f"[grid]\nlearning-rate = {rates}")
    colours = [key.colour for key in keys_of(results)]
    assert len(set(colours[:SHOWN])) == SHOWN
    assert len(set(colours[SHOWN:])) == 1
    chart = curves_chart("c", "Accuracy", results, ACCURACY.measure, "rounds", ACCURACY)
    assert chart is not None
    assert len(chart.legend) == SHOWN


def test_charts_exist_where_they_mean_something(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path)
    heat = heat_chart("h", plan, results)
    assert heat is not None
    assert f"learning-rate 0.1 · batch-size 5: {100 * results[0].median:.1f} %" in heat.alt
    assert all(slice_chart(f"s{key}", plan, results, key) is not None for key in plan.keys)
    one, single = results_of(tmp_path, "[grid]\nlearning-rate = [0.1]\n", name="one")
    assert heat_chart("h", one, single) is None
    assert parallel_chart("p", one, single) is None
    drawn = "[grid]\nbatch-size = [5, 10]\n[random]\nlearning-rate = { low = 0.1, high = 1.0 }\n[sweep]\ntrials = 3\n"
    plan, results = results_of(tmp_path, drawn, name="drawn")
    assert heat_chart("h", plan, results) is None
    assert parallel_chart("p", plan, results) is not None


def test_importance_finds_the_key_that_matters(tmp_path: Path) -> None:
    text = TEXT.replace("[0.01, 0.1, 1.0]", "[0.001, 0.01, 0.1, 1.0]")
    plan, results = results_of(tmp_path, text)
    shares = importance(plan, results)
    assert_allclose(sum(shares.values()), 1.0)
    assert shares["learning-rate"] > 0.9  # of the made-up accuracies all but 0.0005 comes from it
    assert importance(plan, results) == shares
    assert importance(plan, results[: LEAST - 1]) == {}


def page(folder: Path, plan: Plan, results: list[Result]) -> Page:
    """Return the page, having checked that it is well-formed, has no scripts and fetches nothing."""
    found = Page(render(folder, plan, results, importance(plan, results)))
    assert (found.unmatched, found.open, found.fetched, found.scripts) == ([], [], [], 0)
    assert len(found.ids) == len(set(found.ids))
    assert all(found.alts)
    return found


def test_the_page_says_it_all(tmp_path: Path) -> None:
    failing = FakeRunner({1.0: lambda: UserError("The update is <b>not finite</b>.")}, noisy)
    plan, results = results_of(tmp_path, runner=failing)
    text = flat(page(tmp_path / "my runs", plan, results).text)
    for expected in (
        *(
            "Sweep lr",
            "Best central accuracy",
            "The best configuration",
            "fedavg · digits",
            "86.9 %",
            "81.9 % to 91.7 %",
        ),
        *(
            "4 completed, 2 failed",
            f"fedkeras simulate -c '{tmp_path}/my runs/best.toml'",
            "Central accuracy over bytes",
        ),
        *("learning-rate 1.0 · batch-size 5 and 1 more failed: The update is <b>not finite</b>.", "All configurations"),
    ):
        assert expected in text, expected
    assert "Central accuracy over time" not in text  # of which a run has more the earlier it stands in the sweep


@pytest.mark.parametrize(
    ("text", "runner"),
    [
        ("[grid]\nlearning-rate = [0.1]\n", FakeRunner()),
        ("[grid]\nlearning-rate = [0.1]\n", FakeRunner({0.1: lambda: UserError("no")})),
        ("[grid]\nlearning-rate = [0.1, 1.0]\n[sweep]\nmetric='loss'\n", FakeRunner(final=lambda config: math.nan)),
        ("[grid]\nlearning-rate = [0.1, 1.0]\n[sweep]\nmetric='loss'\n", FakeRunner(final=lambda config: -math.inf)),
        ("[grid]\nlearning-rate = [0.1, 1.0]\nbatch-size = [1, 2]\nlocal-epochs = [1, 2]\n", FakeRunner()),
        ("[grid]\nlearning-rate = [0.1, 1.0, 2.0]\n[sweep]\nhalving = { min-rounds = 1 }\n", FakeRunner()),
        ("[base]\nfederated-evaluate-every = 5\n[sweep]\nmetric='clients-loss'\n[grid]\nbatch-size=[1]", FakeRunner()),
    ],
)  # fmt: skip
def test_odd_sweeps_still_give_a_page(tmp_path: Path, text: str, runner: FakeRunner) -> None:
    plan, results = results_of(tmp_path, text, runner)
    assert "All configurations" in page(tmp_path, plan, results).text


def test_a_page_of_nothing_yet_and_of_a_part(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path)
    assert "6 of 6 configurations are still to run." in page(tmp_path, plan, []).text
    assert "4 of 6 configurations are still to run." in page(tmp_path, plan, results[:2]).text


def test_simulated_seconds_take_the_place_of_time(tmp_path: Path) -> None:
    class World(FakeRunner):
        def record(self, config: RunConfig, number: int) -> Any:
            record = super().record(config, number)
            line = {**record.to_json(), "simulated-seconds": 3600.0 * number / config.batch_size}
            return type("Record", (), {"to_json": lambda self: line, "round": number})()

    plan, results = results_of(tmp_path, runner=World(final=noisy))
    assert results[0].spent("simulated") == 3600.0 * 10 / 5
    text = flat(page(tmp_path, plan, results).text)
    assert "Central accuracy over simulated time" in text
    assert "Central accuracy over time" not in text
    assert "2 h 00 min" in text


class Private(FakeRunner):
    """Epsilon is the number of the round over the batch size, or there is no noise at a learning rate of 1."""

    def record(self, config: RunConfig, number: int) -> Any:
        free = config.learning_rate == 1.0
        epsilon, caveat = (math.inf, "has no privacy") if free else (number / config.batch_size, "")
        spent = Spending(epsilon, 1e-5, "PLD", "add or remove one", "poisson", 0.1, number, caveat=caveat)
        return replace(super().record(config, number), privacy=spent if number else None)


def test_what_private_runs_have_spent_stands_beside_what_they_reached(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path, runner=Private(final=noisy))
    found = {(result.label, result.privacy.epsilon_in_words) for result in results if result.privacy}
    assert ("learning-rate 0.1 · batch-size 5", "2") in found and (
        "learning-rate 1.0 · batch-size 10",
        "no privacy",
    ) in found
    text = flat(page(tmp_path, plan, results).text)
    assert "learning-rate 1.0 · batch-size 5 and 1 more: the run has no privacy." in text and "epsilon" in text
    write_results(tmp_path, plan, results)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    told = {(row["learning-rate"], row["batch-size"]): (row["epsilon"], row["privacy-caveat"]) for row in rows}
    assert told["0.01", "10"] == ("1.0", "") and told["1.0", "5"] == ("inf", "has no privacy")


def test_without_privacy_a_sweep_does_not_speak_of_it(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path)
    assert "epsilon" not in page(tmp_path, plan, results).text
    write_results(tmp_path, plan, results)
    assert "epsilon" not in (tmp_path / "results.csv").read_text()


def test_the_example_of_the_readme_lies_there() -> None:
    assert (REPOSITORY / "presets" / "sweeps" / "digits.toml").is_file()
