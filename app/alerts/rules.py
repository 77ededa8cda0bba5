"""The rules of alerts: each a name, the run-config key of its threshold, and what it finds of a run's health.

A rule looks at one state and remembers nothing. It finds its subject bad, good, or neither: an alert fires when bad and
is over when good, so that what hovers around a threshold does not fire again and again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from app.alerts.health import LOSSES, Health
from app.units import human_seconds, percent

MARGIN = 0.1  # an alert is over when its value is by so much of the threshold on the good side
LEAST_SECONDS = 1.0  # by which a round must be longer than usual: below, a computer's own whims decide
LIKELY = 14.0  # updates expected and not one seen: chance does that to one in a million
KINDS = {"device-classes": "device class", "regions": "region"}


class Level(Enum):
    """How a rule finds its subject."""

    GOOD = "good"
    BETWEEN = "between"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """What a rule finds of a ``subject`` ("" where it has but one), and a sentence that says it."""

    level: Level
    text: str
    subject: str = ""


Judge = Callable[[Health, float], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """A rule by ``name``; the value of ``key`` is its threshold, 0 turns it off."""

    name: str
    key: str
    judge: Judge


def above(value: float, bound: float, relief: float = math.nan) -> Level:
    """Return BAD above the bound, GOOD at most at ``relief``, by default `MARGIN` below the bound."""
    if not value <= bound:  # true for NaN
        return Level.BAD
    good = bound * (1 - MARGIN) if math.isnan(relief) else relief
    return Level.GOOD if value <= good else Level.BETWEEN


def participation(health: Health, least: float) -> Iterator[Finding]:
    """Too few of the selected clients sent an update."""
    came = health.turnout
    if (share := came.participation) is None:
        return
    told = f"{percent(share)} of {came.asked} selected clients sent an update" if came.asked else "Nobody was there"
    yield Finding(above(1 - share, 1 - least), f"{told}; it should be {percent(least)} or more.")


def rejected(health: Health, most: float) -> Iterator[Finding]:
    """Too many updates were rejected for what they are."""
    came = health.turnout
    if (share := came.rejected) is None:
        return
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(came.reasons.items()))
    told = f"Of {came.asked} selected clients {percent(share)} were rejected{f' ({why})' if why else ''}"
    yield Finding(above(share, most), f"{told}; it should be {percent(most)} at most.")


def stagnation(health: Health, rounds: float) -> Iterator[Finding]:
    """For so many rounds in a row the accuracy has not done well: neither better than ever, nor near a high best."""
    course = health.learning
    if course.latest is None:
        return
    level = Level.BAD if health.round - course.good >= rounds else Level.GOOD
    best = f"the best {percent(course.best)} of round {course.found}"
    told = best if math.isfinite(course.best) else "and has never been a number"
    yield Finding(level, f"The accuracy is {percent(course.latest)}, {told}.")


def budget(health: Health, share: float) -> Iterator[Finding]:
    """Most of the budget of privacy is spent."""
    if health.budget is not None:
        told = f"{percent(health.budget)} of 'budget-epsilon' are spent (epsilon {health.epsilon:.3g})"
        yield Finding(above(health.budget, share), f"{told}; the run ends before it would exceed them.")


def not_used_up(health: Health, share: float) -> Iterator[Finding]:
    """A round was begun, so there was budget for it; that none is left shows in no round (`AlertSink.budget_spent`)."""
    if not health.ended:
        yield Finding(Level.GOOD, f"There was budget for round {health.round}.")


def duration(health: Health, factor: float) -> Iterator[Finding]:
    """The round took far longer than rounds did."""
    course = health.seconds
    if course is None or math.isnan(course.usual):
        return
    bound = max(factor * course.usual, course.usual + LEAST_SECONDS)
    text = f"The round took {human_seconds(course.latest)}, where {human_seconds(course.usual)} are usual."
    yield Finding(above(course.latest, bound), text)


def loss(health: Health, factor: float) -> Iterator[Finding]:
    """A loss is not finite, or worse than that of the untrained model and far worse than it was."""
    for group, course in health.losses.items():
        known = [value for value in (course.first, factor * course.usual) if math.isfinite(value)]
        bound = max(known, default=math.inf)
        level = above(course.latest, bound) if math.isfinite(course.latest) else Level.BAD
        usual = f", where {course.usual:.4g} is usual" if course.earlier else ""
        yield Finding(level, f"The {LOSSES[group]} loss is {course.latest:.4g}{usual}.", group)


def absent(health: Health, asked: float) -> Iterator[Finding]:
    """Of a device class or region no update counts any more."""
    for (kind, name), silence in health.silences.items():
        in_vain = silence.asked >= min(asked, max(1, silence.clients))
        bad = not silence.clients or in_vain or silence.expected >= LIKELY
        heard = not silence.asked and not silence.expected
        level = Level.BAD if bad else Level.GOOD if heard else Level.BETWEEN
        which = f"the {KINDS[kind]} '{name}'"
        asked_of = f"{silence.asked} of them {'was' if silence.asked == 1 else 'were'} asked meanwhile"
        why = asked_of if silence.clients else "it has none any more"
        text = f"Clients of {which} count." if heard else f"No update of clients of {which} has counted; {why}."
        yield Finding(level, text, f"{kind}/{name}")


def unkept(health: Health, most: float) -> Iterator[Finding]:
    """So many checkpoints in a row could not be written."""
    failed = health.failed_checkpoints
    level = Level.BAD if failed >= most else Level.GOOD if failed == 0 else Level.BETWEEN
    last = "there is none" if health.checkpoint is None else f"the last one is that of round {health.checkpoint}"
    yield Finding(level, f"Checkpoints could not be written: {last}." if failed else "Checkpoints are written.")


@dataclass(frozen=True)
class ExpiringCertificates:
    """A certificate expires within so many days; ``days_left`` tells of each file, or why that cannot be told."""

    days_left: Callable[[], Mapping[str, float | str]]

    def __call__(self, health: Health, days: float) -> Iterator[Finding]:
        """Look at the files anew: a certificate that was renewed is good again."""
        for file, left in self.days_left().items():
            if isinstance(left, str):
                yield Finding(Level.BAD, f"The certificate {file} cannot be watched: {left}.", file)
                continue
            told = f"expires in {left:.1f} days" if left > 0 else f"expired {-left:.1f} days ago"
            yield Finding(above(-left, -days, -days * (1 + MARGIN)), f"The certificate {file} {told}.", file)


USED_UP = "budget-used-up"


def rules_of(days_left: Callable[[], Mapping[str, float | str]]) -> tuple[Rule, ...]:
    """Return all rules of a run that watches these certificates."""
    return (
        Rule("participation", "alert-participation", participation),
        Rule("rejected", "alert-rejected", rejected),
        Rule("stagnation", "alert-stagnation-rounds", stagnation),
        Rule("budget", "alert-budget", budget),
        Rule(USED_UP, "alert-budget", not_used_up),
        Rule("duration", "alert-duration", duration),
        Rule("loss", "alert-loss", loss),
        Rule("absent", "alert-absent", absent),
        Rule("checkpoint", "alert-checkpoint", unkept),
        Rule("certificate", "alert-certificate-days", ExpiringCertificates(days_left)),
    )
