"""``fedkeras privacy``: the numbers of the plan, the noise for a budget, a sentence for whatever weakens it."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from rich.console import Console
from typer.testing import CliRunner

from app import cli
from app.compose import example_level
from app.config import RunConfig
from app.errors import UserError
from app.privacy_command import Request, answer, draw, milestones, planned, sentences
from strategies.privacy.accounting import Release, epsilons
from strategies.privacy.plan import Plan
from tests.strategies.privacy.test_accounting import gaussian_epsilon

REPOSITORY = Path(__file__).resolve().parents[2]
FEMNIST = (
    "strategy=dp-fedavg",
    "num-clients=190",
    "clients-per-round=50",
    "num-rounds=100",
    "noise-multiplier=2",
    "budget-delta=0.001",
)


def said(*overrides: str, **request: object) -> str:
    text = io.StringIO()
    answer(Request(overrides, **request), REPOSITORY, Console(file=text, width=100))  # type: ignore[arg-type]
    return text.getvalue()


def config(*pairs: tuple[str, object]) -> RunConfig:
    return RunConfig.from_run_config({"strategy": "dp-fedavg", **dict(pairs)})


def rows(text: str) -> dict[int, list[str]]:
    """Read the table: its numbers by rounds."""
    found = (re.findall(r"[\w.-]+(?: privacy)?", line) for line in text.splitlines() if line.startswith("│"))
    return {int(first): rest for first, *rest in found}


def test_the_figures_of_the_literature() -> None:
    """The last row is FEMNIST's of test_accounting; each column grows."""
    text = said(*FEMNIST)
    table = rows(text)
    assert list(table) == [1, 2, 5, 10, 20, 50, 100]
    assert table[100] == ["5.585", "4.908", "4.908"]
    for column in range(3):
        values = [float(row[column]) for row in table.values()]
        assert values == sorted(values)
    assert "50 of 190 clients a round, on average; noise multiplier 2; delta 0.001" in text
    assert "epsilon 4.908 and delta 0.001, add or remove one" in text
    assert text.count("User-level differential privacy") == 1


def test_the_noise_that_an_epsilon_asks_for_keeps_to_it_when_it_is_set() -> None:
    text = said(*FEMNIST, epsilon=3.0)
    setting = re.search(r"-c (noise-multiplier=[\d.]+)", text)
    assert setting is not None
    reached = float(rows(text)[100][2])
    assert 2.99 < reached <= 3.0
    assert rows(said(*FEMNIST, setting[1])) == rows(text)


def test_a_budget_ends_the_run_after_so_many_rounds() -> None:
    text = said(*FEMNIST, "budget-epsilon=3")
    allowed = int(re.search(r"The budget, epsilon 3, allows (\d+) of the 100 rounds", text)[1])  # type: ignore[index]
    plan = planned(
        RunConfig.from_run_config(
            {
                "strategy": "dp-fedavg",
                "num-clients": 190,
                "clients-per-round": 50,
                "num-rounds": 100,
                "noise-multiplier": 2.0,
                "budget-delta": 1e-3,
            }
        )
    )
    assert plan.after(allowed).tightest <= 3 < plan.after(allowed + 1).tightest


def test_no_noise_says_no_privacy_everywhere(tmp_path: Path) -> None:
    text = said(*FEMNIST, "noise-multiplier=0", plot=tmp_path / "none.png")
    assert rows(text)[100] == ["no privacy", "-", "no privacy"]
    assert "no noise, no privacy" in text
    assert "No privacy: the key 'noise-multiplier' is 0" in text
    assert "differential privacy, epsilon" not in text
    assert (tmp_path / "none.png").is_file()


def test_a_fixed_size_names_its_adjacency_and_has_no_pld() -> None:
    text = said(*FEMNIST, "strategy=fedavg", "privacy=dp-fedavg", "selection=uniform")
    assert rows(text)[100][1] == "-"
    assert "replace one" in text and "50 of 190 clients" in text
    assert float(rows(text)[100][0]) == pytest.approx(37.475, abs=0.01)  # by the noise's ratio to what one client moves


def test_the_plan_is_what_the_parts_of_the_run_say() -> None:
    adaptive = planned(config(("strategy", "dp-fedavg-adaptive"), ("clients-per-round", 20)))
    assert adaptive == Plan(50, 20, "poisson", 30, 0.5, 1e-5, adaptive=True)
    assert planned(config(("strategy", "fedavg"), ("privacy", "dp-fedavg"))).sampling == "fixed"
    assert planned(config(), population=10**6).release.rate == 1e-5
    mixed = RunConfig.from_run_config({"strategy": "fedadam", "privacy": "dp-fedavg", "selection": "poisson"})
    assert planned(mixed).sampling == "poisson"


def test_passes_are_paid_as_a_whole_and_their_slots_explained() -> None:
    """Of 10 rounds, by the closed form of a Gaussian mechanism: 25 rounds begin three passes."""
    keys = ("num-clients=200", "clients-per-round=20", "num-rounds=25", "noise-multiplier=8", "budget-delta=0.0001")
    tree, banded = (said(f"strategy={name}", *keys) for name in ("dp-ftrl", "dp-mf"))
    for text, multiplier in ((tree, 8 / math.sqrt(4)), (banded, 8.0)):
        assert "20 of 200 clients a round, each once in a pass of 10 rounds; noise multiplier 8" in text
        for rounds, passes in ((1, 1), (10, 1), (20, 2), (25, 3)):
            alone = gaussian_epsilon(math.sqrt(passes) / multiplier, 1e-4)
            assert float(rows(text)[rounds][2]) == pytest.approx(alone, rel=1e-3)
        assert "the models of all 3 passes together" in text and "assumes that no client takes part twice" in text
        assert "The seed and its id say in which round of a pass a client takes part" in text
    assert "online" not in said("strategy=dp-mf", *keys, "availability=0.5", "example-seconds=1")


def test_what_weakens_it_is_said() -> None:
    asleep = config(("availability", 0.5), ("example-seconds", 1.0), ("budget-delta", 0.1))
    found = " ".join(sentences(asleep, planned(asleep)))
    assert "Where fewer clients are online" in found
    assert "not below 1 / population" in found
    usual = config()
    assert "online" not in " ".join(sentences(usual, planned(usual)))


PRIVATE_EXAMPLES = ("dp-sgd-clip=1", "batch-size=32", "local-epochs=1", "num-rounds=20", "num-clients=40")


def test_examples_of_a_client_with_so_many() -> None:
    text = said(*PRIVATE_EXAMPLES, examples=600)
    level = example_level(RunConfig.from_run_config({"dp-sgd-clip": 1.0, "batch-size": 32, "local-epochs": 1}))
    assert level is not None
    expected = level.epsilons(600, 20)
    assert rows(text)[20] == [f"{value:.4g}" for value in (expected.rdp, expected.pld or 0.0, expected.tightest)]
    assert "600 examples, 19 steps a round in batches of 32; noise multiplier 1.1; delta 1e-05" in text
    assert "Example-level differential privacy" in text and "on average one is asked in 5 of them" in text


def test_the_noise_that_examples_ask_for() -> None:
    text = said(*PRIVATE_EXAMPLES, examples=600, epsilon=2.0)
    setting = re.search(r"-c (dp-sgd-noise-multiplier=[\d.]+)", text)
    assert setting is not None and 1.98 < float(rows(text)[20][2]) <= 2.0
    assert rows(said(*PRIVATE_EXAMPLES, setting[1], examples=600)) == rows(text)


def test_clients_and_examples_are_both_answered_for() -> None:
    text = said(*FEMNIST, "dp-sgd-clip=1", examples=80)
    assert text.index("User-level differential privacy") < text.index("Example-level differential privacy")


def test_local_privacy_pays_for_every_round() -> None:
    text = said("strategy=local-dp", "noise-multiplier=8", "num-rounds=20", "selection=weighted")
    expected = epsilons({Release("local", 1.0, 8.0): 20}, 1e-5)
    assert rows(text)[20] == [f"{value:.4g}" for value in (expected.rdp, expected.pld or 0.0, expected.tightest)]
    assert "each client for itself, asked in every round; noise multiplier 8" in text
    assert "User-level local differential privacy" in text and "asked in 4 of them" in text


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("strategy=fedavg",), "has no differential privacy to account for.*'dp-fedavg'"),
        (("dp-sgd-clip=1",), "'dp-sgd-clip' is 1: .* by --examples"),
        ((*FEMNIST, "partition=natural", "dataset=npz:silos"), "by --population"),
        ((*FEMNIST, "selection=weighted"), "."),
        (("strategy=dp-fedavg-adaptive", "noise-multiplier=1"), "must be below 1, a tenth"),
        (("strategy=dp-fedavg", "clients-per-round=0"), "'clients-per-round'"),
    ],
)
def test_what_cannot_be_accounted(overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        said(*overrides)


def test_too_few_clients_for_the_cohort() -> None:
    with pytest.raises(UserError, match="sampling rate would be above 1"):
        said(*FEMNIST, population=20)


@pytest.mark.parametrize(("rounds", "shown"), [(1, [1]), (2, [1, 2]), (10, [1, 2, 5, 10]), (30, [1, 2, 5, 10, 20, 30])])
def test_milestones(rounds: int, shown: list[int]) -> None:
    assert milestones(rounds) == shown


def test_the_picture_is_one(tmp_path: Path) -> None:
    plan = Plan(100, 10, "poisson", 6, 1.0, 1e-3)
    drawn = image.imread(draw(plan, tmp_path / "epsilon.png"))
    assert drawn.shape[0] > 300 and drawn.shape[1] > 500
    assert np.unique(drawn.reshape(-1, drawn.shape[2]), axis=0).shape[0] > 10
    assert "epsilon at delta 0.001" in draw(plan, tmp_path / "epsilon.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["epsilon.doc", "nowhere/epsilon.png"])
def test_a_picture_that_cannot_be_written(file: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--plot"):
        draw(Plan(100, 10, "poisson", 2, 1.0, 1e-3), tmp_path / file)


def test_from_the_command_line(tmp_path: Path) -> None:
    arguments = [part for pair in FEMNIST for part in ("-c", pair)]
    result = CliRunner().invoke(cli.commands, ["privacy", *arguments, "--population", "1900"])
    assert result.exit_code == 0
    assert "50 of 1900 clients" in result.output
    assert math.isfinite(float(rows(result.output)[100][2]))


def test_the_noise_of_a_larger_cohort_is_labelled_and_costs_the_same() -> None:
    text = said(*FEMNIST, "num-rounds=1", "noise-cohort-size=5000")
    assert rows(text) == rows(said(*FEMNIST, "num-rounds=1"))
    label = "simulates the noise of a cohort of 5000; this run itself is not private"
    assert f"delta 0.001; {label}" in text and f"The run {label}. Of that cohort it would hold: User-level" in text
    assert "1 / population = 5.26316e-05" in text
