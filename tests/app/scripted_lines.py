"""Lines of ``metrics.jsonl`` as a run writes them when all is well, and with a fault in some rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from app.alerts.engine import Engine, Event
from app.alerts.rules import rules_of
from app.config import RunConfig
from strategies.privacy.spending import Spending
from strategies.records import RoundRecord

COHORT = tuple("abcdefghij")
THRESHOLDS: dict[str, float] = {
    key: value for key, value in RunConfig().to_run_config().items()
    if key.startswith("alert-") and isinstance(value, int | float)
}  # fmt: skip

Fault = Mapping[str, Any]


def spending(epsilon: float, budget: float = 8.0) -> Spending:
    return Spending(epsilon, 1e-5, "RDP", "add or remove one", "poisson", 0.1, 1, budget - epsilon)


def groups(**counted: int) -> dict[str, Any]:
    """Regions of twenty clients each, five of which were asked."""
    told = {name: {"clients": 20, "selected": 5, "counted": count} for name, count in counted.items()}
    return {"regions": {"effective": 2.0, "groups": told}}


def record(number: int, **fault: Any) -> RoundRecord:
    """A good round: all ten clients count, accuracy rises a little, in 0.2 s, with the round before saved."""
    good = {
        "round": number,
        "selected": COHORT if number else (),
        "accepted": COHORT if number else (),
        "offered": 40,
        "train": {"loss": 2.3 * 0.995**number} if number else {},
        "central": {"loss": 2.3 * 0.995**number, "accuracy": 1 - 0.9 * 0.995**number},
        "seconds": {"train": 0.1, "total": 0.2},
        "privacy": spending(number / 100) if number else None,
        "checkpoint": number - 1 if number else None,
        "diversity": groups(europe=5, asia=5) if number else None,
    }
    return RoundRecord(**{**good, **fault})


def lines(rounds: int, faults: Mapping[int, Fault] = {}) -> list[dict[str, Any]]:
    return [record(number, **faults.get(number, {})).to_json() for number in range(rounds + 1)]


def engine(thresholds: Mapping[str, float] = {}, days_left: Callable[[], Mapping[str, float | str]] = dict) -> Engine:
    return Engine(rules_of(days_left), {**THRESHOLDS, **thresholds})


def events(lines: Iterable[Mapping[str, Any]], watching: Engine | None = None) -> list[tuple[int, str, str, str]]:
    """What is told of the lines: (round, alert, subject, state)."""
    watching = watching or engine()
    return [told(event) for line in lines for event in watching.round(line)]


def told(event: Event) -> tuple[int, str, str, str]:
    return event.round, event.alert, event.subject, event.state
