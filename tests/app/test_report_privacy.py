"""What a page says of privacy: epsilon and the budget, the clipping norm, what is covered, and where there is none."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.report.privacy import epsilon_chart, norm_chart
from app.report.reading import read_run
from app.run_directory import RunDirectory, Scalar
from strategies.privacy.spending import Spending
from strategies.records import RoundRecord
from tests.app.test_report import flat, make_run, page_of, record

CAVEAT = "simulates the noise of a cohort of 400; this run itself is not private"
PAID = Spending(1.0, 1e-5, "PLD", "add or remove one", "poisson", 0.25, 1)


def private(
    runs: Path, epsilons: Sequence[float], norms: Sequence[float], *, caveat: str = "", budget: float = 0.0
) -> RunDirectory:
    config: dict[str, Scalar] = {"budget-epsilon": budget} if budget else {}
    records: list[RoundRecord] = [record(0)]
    for number, (epsilon, norm) in enumerate(zip(epsilons, norms, strict=True), start=1):
        left = budget - epsilon if budget else None
        noise = {"clipping-norm": norm, "noise-multiplier": 1.0, "noise-deviation": norm / 4}
        paid = replace(PAID, epsilon=epsilon, releases=number, left=left, noise=noise, caveat=caveat)
        records.append(record(number, privacy=paid))
    return make_run(runs, records, config=config)


def test_what_was_spent_is_read_back_as_it_was_told(tmp_path: Path) -> None:
    directory = private(tmp_path, [1.5, 2.25], [1.0, 0.9], budget=4.0)
    assert read_run(directory.path).spent == replace(
        PAID,
        epsilon=2.25,
        releases=2,
        left=1.75,
        noise={"clipping-norm": 0.9, "noise-multiplier": 1.0, "noise-deviation": 0.225},
    )


def test_a_private_run_says_what_it_covers_and_draws_epsilon_and_norm(tmp_path: Path) -> None:
    page = page_of(private(tmp_path, [1.5, 2.25, 2.75], [1.0, 0.9, 0.7], budget=4.0))
    text = flat(page.text)
    assert (
        "User-level differential privacy, epsilon 2.75 and delta 1e-05, add or remove one: the models of all 3" in text
    )
    assert "draws each client with probability at most 0.25" in text
    assert "2.75 delta 1e-05, by PLD, 1.25 left" in text
    assert (
        "Epsilon over rounds: epsilon goes from 1.5 to 2.75 in 3 points; budget goes from 4 to 4 in 2 points"
        in page.alts
    )
    assert "Clipping norm over rounds: clipping norm goes from 1 to 0.7 in 3 points" in page.alts


def test_a_norm_that_stays_is_not_drawn_and_without_a_budget_there_is_no_line_of_it(tmp_path: Path) -> None:
    run = read_run(private(tmp_path, [1.5, 2.25], [1.0, 1.0]).path)
    assert norm_chart("n", run) is None
    chart = epsilon_chart("e", run)
    assert chart is not None and [key.label for key in chart.legend] == ["epsilon"]


def test_where_the_budget_has_ended_the_run_the_page_says_so(tmp_path: Path) -> None:
    """Of three rounds that the config of these runs asks for."""
    said = "The run ended before round 3, which would have exceeded the budget of privacy."
    assert said in flat(page_of(private(tmp_path / "a", [1.5, 2.0], [1.0, 1.0], budget=2.1)).text)
    assert "exceeded" not in page_of(private(tmp_path / "b", [1.5, 1.8, 2.0], [1.0] * 3, budget=2.1)).text
    assert "exceeded" not in page_of(private(tmp_path / "c", [1.5, 2.0], [1.0, 1.0])).text


def test_what_clients_report_is_missing_because_it_is_withheld(tmp_path: Path) -> None:
    assert "(allow-unprotected-metrics = false)" in page_of(private(tmp_path / "a", [1.5], [1.0])).text
    assert "(federated-evaluate-every = 0)" in page_of(make_run(tmp_path / "b", [record(0), record(1)])).text


def test_no_noise_is_no_privacy(tmp_path: Path) -> None:
    directory = private(tmp_path, [math.inf] * 2, [1.0, 0.9], caveat="has no privacy")
    text = flat(page_of(directory).text)
    assert "The run has no privacy." in text and "Epsilonno privacy there is no noise" in text
    assert "No privacy: whoever sees the models may learn everything about a client." in text
    assert epsilon_chart("e", read_run(directory.path)) is None
    assert json.loads(directory.metrics.read_text().splitlines()[-1])["privacy"]["epsilon"] == "Infinity"


def test_the_noise_of_a_cohort_that_is_not_there_is_labelled(tmp_path: Path) -> None:
    text = flat(page_of(private(tmp_path, [1.5], [1.0], caveat=CAVEAT)).text)
    assert f"The run {CAVEAT}." in text  # among the notes
    assert f"The run {CAVEAT}. Of that cohort it would hold: User-level" in text
    assert f"Epsilon1.5 {CAVEAT}" in text


def test_without_privacy_the_page_does_not_speak_of_it(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, [record(0), record(1)]))
    assert "epsilon" not in page.text.lower() and "privacy" not in page.text.lower()


def test_a_private_run_beside_another(tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", [record(0), record(1)], name="plain")
    page = page_of(private(tmp_path / "own", [1.5, 2.5], [1.0, 1.0]), other)
    assert "–no differential privacy" in flat(page.text)
    assert any(alt.startswith("Epsilon over rounds: ") for alt in page.alts)


@pytest.mark.parametrize("spoilt", [{}, {"epsilon": "much"}, 3])
def test_a_line_whose_privacy_cannot_be_read_is_left_out_with_a_note(tmp_path: Path, spoilt: object) -> None:
    directory = private(tmp_path, [1.5, 2.5], [1.0, 1.0])
    *lines, last = directory.metrics.read_text().splitlines()
    directory.metrics.write_text("\n".join([*lines, json.dumps({**json.loads(last), "privacy": spoilt})]) + "\n")
    run = read_run(directory.path)
    assert run.notes == ("Line 3 of metrics.jsonl cannot be read and is left out.",)
    assert run.spent is not None and run.spent.epsilon == 1.5
