"""A sweep as a table: what stands where in the file, in the CSV and on the page, and which tables are refused."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from app.config import RunConfig
from app.contradictions import ONLY_WITH, does_nothing
from app.errors import ConfigError, UserError
from simulation.sweep.command import carry_out, sweep_file
from simulation.sweep.heat import panels_chart
from simulation.sweep.page import render
from simulation.sweep.plan import Plan, read_plan
from simulation.sweep.results import Result, ranked
from simulation.sweep.table import Pivot, write_table
from tests.app.test_report import Page
from tests.simulation.sweep_runner import REPOSITORY, FakeRunner, plan_of, sweep

GRID = """
[grid]
partition = ["iid", "dirichlet"]
learning-rate = [0.1, 0.01, 1.0]
attack = ["none", "alie"]
[table]
rows = "learning-rate"
columns = "attack"
panels = "partition"
"""


def accuracy(config: RunConfig) -> float:
    """A number that tells the cells apart: 0.5 and 0.2, 0.1 and 0.01 for what is not the default."""
    return 0.5 + 0.2 * (config.partition == "iid") + 0.1 * (config.attack == "none") + config.learning_rate / 100


def results_of(tmp_path: Path, text: str = GRID, runner: FakeRunner | None = None) -> tuple[Plan, list[Result]]:
    plan = plan_of(tmp_path, text)
    return plan, ranked(plan, sweep(plan, runner or FakeRunner(final=accuracy), tmp_path / "lr"))


def test_cells_stand_where_their_values_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path)
    pivot = Pivot.of(plan, results)
    assert pivot is not None
    lines = list(pivot.lines())
    assert [(panel, row) for panel, row, _ in lines] == [
        ("iid", 0.1), ("iid", 0.01), ("iid", 1.0), ("dirichlet", 0.1), ("dirichlet", 0.01), ("dirichlet", 1.0),
    ]  # fmt: skip
    for panel, row, cells in lines:
        for column, cell in zip(("none", "alie"), cells, strict=True):
            assert cell is not None
            assert cell.configuration.values == {"partition": panel, "learning-rate": row, "attack": column}
            assert cell.median == pytest.approx(accuracy(plan.config(cell.configuration.values, 0, "")), rel=0.05)


def test_the_csv_has_a_line_per_panel_and_row_and_is_empty_where_nothing_came_out(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path, runner=FakeRunner({1.0: lambda: UserError("No.")}, final=accuracy))
    pivot = Pivot.of(plan, results[:-1])  # of one, nothing is known yet
    assert pivot is not None
    write_table(tmp_path, pivot)
    with (tmp_path / "table.csv").open() as file:
        head, *lines = csv.reader(file)
    assert head == ["partition", "learning-rate", "none", "alie"]
    assert [line[:2] for line in lines] == [[p, r] for p in ("iid", "dirichlet") for r in ("0.1", "0.01", "1.0")]
    assert [[bool(cell) for cell in line[2:]] for line in lines] == [[True] * 2, [True] * 2, [False] * 2] * 2
    assert float(lines[0][2]) == next(
        r.median for r in results if r.label == "partition iid · learning-rate 0.1 · attack none"
    )


def test_two_keys_need_no_panels(tmp_path: Path) -> None:
    grid = "[grid]\nlearning-rate = [0.1, 0.01]\nbatch-size = [5, 10]\n"
    text = grid + '[table]\nrows = "batch-size"\ncolumns = "learning-rate"\n'
    plan, results = results_of(tmp_path, text, FakeRunner())
    pivot = Pivot.of(plan, results)
    assert pivot is not None
    write_table(tmp_path, pivot)
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "batch-size,0.1,0.01" and [line.split(",")[0] for line in lines[1:]] == ["5", "10"]
    assert "partition" not in panels_chart("table", plan, pivot).svg


def test_the_page_shows_the_table_and_the_heat_map(tmp_path: Path) -> None:
    plan, results = results_of(tmp_path, runner=FakeRunner({1.0: lambda: UserError("No.")}, final=accuracy))
    page = render(tmp_path, plan, results, {})
    seen = Page(page)
    assert not (seen.open or seen.unmatched or seen.fetched) and len(set(seen.ids)) == len(seen.ids)
    assert "<h2>The table</h2>" in page and "table.csv" in page
    assert page.count("failed") >= 4
    pivot = Pivot.of(plan, results)
    assert pivot is not None
    chart = panels_chart("table", plan, pivot)
    assert chart.title == "Central accuracy by learning-rate and attack, in %"
    assert "partition iid" in chart.svg and "partition dirichlet" in chart.svg
    assert all(f">{name}<" in chart.svg for name in ("none", "alie", "0.01", "failed"))
    assert "The table" not in render(tmp_path, *results_of(tmp_path, GRID.partition("[table]")[0]), {})


def test_the_command_leaves_the_table(tmp_path: Path) -> None:
    carry_out(plan_of(tmp_path, GRID), FakeRunner(final=accuracy), lambda line: None)
    assert (tmp_path / "runs" / "lr" / "table.csv").is_file()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('rows = "learning-rate"\ncolumns = "attack"', "[table] shows learning-rate, attack, but what varies is"),
        ('rows = "learning-rate"\ncolumns = "attack"\npanels = "attack"', "each key that varies must stand in [grid]"),
        ('rows = "learning-rate"\ncolumns = "attack"\npanel = "partition"', "did you mean 'panels'?"),
        ('rows = "learning-rate"', "[table] lacks the key 'columns'."),
        ('rows = 3\ncolumns = "attack"', "In [table]: The key 'rows' is 3, but must be a string."),
    ],
)
def test_tables_that_do_not_fit_the_grid_are_refused(tmp_path: Path, table: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, GRID.partition("[table]")[0] + f"[table]\n{table}\n")
    assert sentence in str(caught.value)


def test_a_table_of_drawn_keys_is_refused(tmp_path: Path) -> None:
    text = "[grid]\nbatch-size = [5, 10]\n[random]\nlearning-rate = { low = 0.1, high = 1.0 }\n"
    with pytest.raises(ConfigError, match="must stand in"):
        plan_of(tmp_path, text + '[table]\nrows = "batch-size"\ncolumns = "learning-rate"\n')


# What the base says of keys that matter in some configurations only


def test_a_key_of_the_base_is_left_out_where_it_does_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, '[base]\nattackers = 0.4\n[grid]\nattack = ["none", "alie"]\n')
    assert plan.config({"attack": "alie"}, 0, "").attackers == 0.4
    assert plan.config({"attack": "none"}, 0, "").attackers == 0.2
    assert plan.base["attackers"] == 0.4


def test_a_key_of_the_base_that_never_does_anything_is_still_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The key 'attack-target' is 3, but does nothing with attack 'none'"):
        plan_of(tmp_path, '[base]\nattack-target = 3\n[grid]\nattack = ["none", "alie"]\n')


def test_what_does_nothing() -> None:
    values = RunConfig().to_run_config()
    assert {key for key in values if does_nothing(key, values)} == set(ONLY_WITH) - {"dirichlet-alpha"}
    assert not does_nothing("attackers", {**values, "attack": "nan"})


# The ready-made sweep


def test_the_ready_made_table_is_found_by_both_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = REPOSITORY / "presets" / "sweeps" / "robustness.toml"
    assert sweep_file("presets/robustness.toml", REPOSITORY) == sweep_file("robustness", REPOSITORY) == file
    assert file.read_text().startswith("# ")


def test_the_ready_made_table_is_sound_and_tolerates_who_attacks() -> None:
    plan = read_plan(REPOSITORY / "presets" / "sweeps" / "robustness.toml", REPOSITORY, REPOSITORY)
    assert plan.table is not None and plan.table.keys == ("strategy", "attack", "partition")
    assert plan.configurations == 84
    for values in plan.combinations():
        config = plan.config(values, 0, "")
        attackers = math.floor(config.attackers * config.num_clients)
        assert attackers == 4 and config.clients_per_round == 0
        assert config.attackers_tolerated == (0 if config.strategy == "fedavg" else attackers)
