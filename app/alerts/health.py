"""How a run is doing, folded round by round from the lines of ``metrics.jsonl``: all that the rules of alerts look at.

A line is what `strategies.records.RoundRecord.to_json` returns, fresh or read back from the file, so that a run that
goes on knows what it knew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from app.alerts.learning import Learning
from app.plain_json import number
from strategies.admission import Reason
from strategies.diversity import MOST

WINDOW = 50  # earlier rounds that a round is compared with
MISSING = (Reason.LATE, Reason.NOT_SENT, Reason.DROPOUT)
EVALUATIONS = ("evaluate-federated", "evaluate-central")
LOSSES = {"central": "central", "federated": "clients'", "train": "training"}

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Course:
    """A measure over the rounds: its ``latest`` value, the ``first``, and the ``usual`` one of rounds before.

    ``earlier`` holds the values that the usual one is the median of; NaN where there are too few of them.
    """

    latest: float
    first: float
    earlier: tuple[float, ...] = ()
    least: int = 1

    @property
    def usual(self) -> float:
        """The median of the earlier values."""
        return median(self.earlier) if len(self.earlier) >= self.least else math.nan

    def after(self, value: float, *, sane: bool = True) -> Course:
        """Return the course with another value; the latest one becomes an earlier one if it was sane itself."""
        earlier = (*self.earlier, self.latest)[-WINDOW:] if sane else self.earlier
        return replace(self, latest=value, earlier=earlier)


@dataclass(frozen=True)
class Silence:
    """Clients of one device class or region since an update of one of them counted last.

    There are ``clients`` of them now, ``asked`` were asked meanwhile, and so many updates of others counted that
    ``expected`` of theirs would have, were they drawn as often as any.
    """

    clients: int
    asked: int = 0
    expected: float = 0.0


@dataclass(frozen=True)
class Turnout:
    """Of the clients ``asked``: the share that sent an update, and that whose update was ``rejected``, by reason.

    None where nobody was asked; but nobody came (0) where nobody was there.
    """

    asked: int = 0
    participation: float | None = None
    rejected: float | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Health:
    """The state of a run after ``round``, and what to compare it with.

    ``budget`` is the share of the budget of privacy that is spent. None stands for what the round does not tell.
    ``checkpoint`` is the last round that is kept, and ``failed_checkpoints`` how many in a row could not be since.
    ``ended`` says that no round follows.
    """

    round: int = 0
    turnout: Turnout = Turnout()
    learning: Learning = field(default_factory=Learning)
    seconds: Course | None = None
    losses: Mapping[str, Course] = field(default_factory=dict)
    budget: float | None = None
    epsilon: float = 0.0
    checkpoint: int | None = None
    failed_checkpoints: int = 0
    silences: Mapping[tuple[str, str], Silence] = field(default_factory=dict)
    clock: float = 0.0
    ended: bool = False

    def after(self, line: Line) -> Health:
        """Return the state after another round."""
        return replace(
            self,
            round=int(line["round"]),
            turnout=turnout(line),
            learning=self.learning.after(line),
            checkpoint=line["checkpoint"],
            failed_checkpoints=line["failed-checkpoints"],
            silences=dict(_silences(line, self.silences)),
            losses=dict(_losses(line, self.losses)),
            **self._duration(line),
            **_budget(line),
        )

    def _duration(self, line: Line) -> dict[str, Any]:
        """Take the simulated clock where there is one: then that is the time that is meant."""
        simulated = line["simulated-seconds"]
        clock = self.clock if simulated is None else number(simulated)
        seconds = clock - self.clock if simulated is not None else _working_seconds(line)
        if int(line["round"]) == 0:
            return {"clock": clock}
        return {
            "clock": clock,
            "seconds": Course(seconds, seconds, least=5) if self.seconds is None else self.seconds.after(seconds),
        }


def _working_seconds(line: Line) -> float:
    """Return what a round took without its evaluations, which not all rounds have."""
    seconds = {phase: number(value) for phase, value in line["seconds"].items()}
    return seconds.get("total", 0.0) - sum(seconds.get(phase, 0.0) for phase in EVALUATIONS)


def turnout(line: Line) -> Turnout:
    """Return who of a round's clients came; who was not needed any more does not count as asked."""
    reasons: Mapping[str, int] = {reason: count for reason, count in line["rejected"].items() if count}
    asked = line["selected"] - reasons.get(Reason.SURPLUS, 0)
    refused = {reason: count for reason, count in reasons.items() if reason not in (*MISSING, Reason.SURPLUS)}
    if asked == 0:  # chance may draw nobody; that nobody is there to be drawn is another matter
        nobody = line["round"] > 0 and line.get("offered") == 0  # a run of before did not say
        return Turnout(0, 0.0 if nobody else None)
    missing = sum(reasons.get(reason, 0) for reason in MISSING)
    return Turnout(asked, (asked - missing) / asked, sum(refused.values()) / asked, refused)


def _losses(line: Line, before: Mapping[str, Course]) -> Iterator[tuple[str, Course]]:
    """Yield the course of each loss; one above that of the untrained model is never among the usual ones."""
    for group in LOSSES:
        known, told = before.get(group), line[group] or {}
        if "loss" not in told:
            if known is not None:
                yield group, known
            continue
        loss = number(told["loss"])
        if known is None or not math.isfinite(known.first):
            yield group, Course(loss, loss)
        else:
            yield group, known.after(loss, sane=known.latest <= known.first)


def _budget(line: Line) -> dict[str, Any]:
    spent = line["privacy"] or {}
    if "epsilon-left" not in spent:
        return {"budget": None}
    epsilon, left = number(spent["epsilon"]), number(spent["epsilon-left"])
    return {"epsilon": epsilon, "budget": epsilon / (epsilon + left)}


def _silences(line: Line, before: Mapping[tuple[str, str], Silence]) -> Iterator[tuple[tuple[str, str], Silence]]:
    """Yield what is known of each group of clients that there is or was; those who named none are no group."""
    told: Mapping[str, Any] = line["diversity"] or {}
    now = {(kind, name): group for kind, groups in told.items() for name, group in groups["groups"].items() if name}
    for key in (*now, *(key for key in before if key not in now)):
        if key not in now:  # gone, unless there are more groups than are told of
            cut = len(told.get(key[0], {"groups": ()})["groups"]) >= MOST
            yield key, before[key] if cut else replace(before[key], clients=0)
            continue
        group, known = now[key], before.get(key, Silence(0))
        if group["counted"]:
            yield key, Silence(group["clients"])
            continue
        everybody = sum(other["clients"] for other in told[key[0]]["groups"].values())
        due = line["accepted"] * group["clients"] / everybody
        yield key, Silence(group["clients"], known.asked + group["selected"], known.expected + due)
