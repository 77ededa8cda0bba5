"""Which alerts are on: rules applied round by round, and an event whenever one fires or is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from app.alerts.health import Health, Line
from app.alerts.rules import Finding, Level, Rule

State = Literal["firing", "resolved"]


@dataclass(frozen=True)
class Event:
    """An alert that has begun to fire in ``round``, or is over; ``text`` is a sentence about what was found then."""

    round: int
    alert: str
    subject: str
    state: State
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as in a line of ``alerts.jsonl``."""
        return asdict(self)


class Engine:
    """Applies rules, each with the threshold under its key (0 turns it off), to one round after the other."""

    def __init__(self, rules: Iterable[Rule], thresholds: Mapping[str, float]) -> None:
        self._rules = [(rule, thresholds[rule.key]) for rule in rules if thresholds[rule.key] > 0]
        self._health = Health()
        self._active: dict[tuple[str, str], Event] = {}

    def go_on(self, lines: Iterable[Line], events: Iterable[Event]) -> None:
        """Take in the rounds before, and the events that were told of them."""
        for line in lines:
            self._health = self._health.after(line)
        for event in events:
            self._active.pop((event.alert, event.subject), None)
            if event.state == "firing":
                self._active[event.alert, event.subject] = event

    @property
    def active(self) -> tuple[Event, ...]:
        """The alerts that are on, as they fired."""
        return tuple(self._active.values())

    def round(self, line: Line) -> list[Event]:
        """Return what begins and ends with a round, given as its line of ``metrics.jsonl``."""
        self._health = self._health.after(line)
        return self._judged()

    def end(self, checkpoint: int | None, failed: int) -> list[Event]:
        """Return what begins and ends with the run: its last checkpoint, and how many in a row ``failed`` since."""
        if self._health == Health():  # no round is over, so there is nothing to judge
            return []
        self._health = replace(self._health, checkpoint=checkpoint, failed_checkpoints=failed, ended=True)
        return self._judged()

    def fire(self, alert: str, text: str) -> list[Event]:
        """Return what begins where something else than its rule has found it, after the latest round."""
        watched = any(rule.name == alert for rule, _ in self._rules)
        return list(self._turn(alert, Finding(Level.BAD, text))) if watched else []

    def _judged(self) -> list[Event]:
        return [event for rule, bound in self._rules for event in self._apply(rule, bound)]

    def _apply(self, rule: Rule, bound: float) -> Iterator[Event]:
        for finding in rule.judge(self._health, bound):
            yield from self._turn(rule.name, finding)

    def _turn(self, alert: str, finding: Finding) -> Iterator[Event]:
        key = alert, finding.subject
        if finding.level is Level.BAD and key not in self._active:
            self._active[key] = event = Event(self._health.round, *key, "firing", finding.text)
            yield event
        elif finding.level is Level.GOOD and self._active.pop(key, None) is not None:
            yield Event(self._health.round, *key, "resolved", finding.text)
