"""What a round's line says of simulated time and of old updates."""

import pytest

from app.log_line import log_line
from strategies.privacy.spending import Spending
from strategies.records import RoundRecord


@pytest.mark.parametrize(
    ("simulated", "said"),
    [(0.0, "0.00 s simulated"), (75.2, "1 min 15 s simulated"), (7500.0, "2 h 05 min simulated")],
)
def test_simulated_time_stands_before_real_time(simulated: float, said: str) -> None:
    record = RoundRecord(2, selected=("a",), accepted=("a",), seconds={"total": 0.5}, simulated_seconds=simulated)
    assert log_line(record, 5) == f"round 2/5 | 1/1 clients | {said} | 0.50 s"


def test_the_age_of_updates_is_told_where_there_is_one() -> None:
    record = RoundRecord(2, selected=("a", "b"), accepted=("a", "b"), staleness={"mean": 1.25, "largest": 12.0})
    assert log_line(record, 5) == "round 2/5 | 2/2 clients | staleness 1.2, at most 12"


def test_bans_are_told_also_where_nobody_is_left_to_ask() -> None:
    record = RoundRecord(2, selected=("a", "b"), accepted=("a",), rejected={"norm": 1}, banned=3)
    assert log_line(record, 5) == "round 2/5 | 1/2 clients (rejected: 1 norm; 3 banned)"
    record = RoundRecord(2, skipped=True, banned=4)
    assert log_line(record, 5) == "round 2/5 | 0/0 clients (4 banned) | SKIPPED, the model stays"


@pytest.mark.parametrize(
    ("epsilon", "caveat", "said"),
    [
        (1.23456, "", "epsilon 1.23 by PLD"),
        (float("inf"), "has no privacy", "NO PRIVACY"),
        (1.23456, "is a simulation", "epsilon 1.23 by PLD (is a simulation)"),
    ],
)
def test_what_the_rounds_have_cost_in_privacy_is_told(epsilon: float, caveat: str, said: str) -> None:
    spent = Spending(epsilon, 1e-5, "PLD", "add or remove one", "poisson", 0.1, 2, caveat=caveat)
    record = RoundRecord(2, selected=("a",), accepted=("a",), privacy=spent)
    assert log_line(record, 5) == f"round 2/5 | 1/1 clients | {said}"


def test_neither_appears_in_rounds_of_real_time() -> None:
    assert log_line(RoundRecord(2, selected=("a",), accepted=("a",)), 5) == "round 2/5 | 1/1 clients"
