"""Whether a model still learns, by its accuracy from round to round: what the alert of stagnation looks at.

A model that stays at its best may have converged, which is how a good run ends and no fault: near its ceiling the
accuracy moves with the clients that happen to be drawn, and may not beat its best for a hundred rounds. So a round does
well if its accuracy is better than any before; or, once the model has learnt most of what it could (`MOST`), if it is
near the best (`NEAR`). A model that never leaves chance, one that is stuck half way, and one that falls and stays down
do not do well, and fire after as many rounds in a row as the threshold says. So does one that the noise of its privacy
holds half way: that it gets no better is true of it, whatever the reason.

Where only the clients evaluate, the untrained model is never measured, and a model that answers what most examples are
may be right as often as one that has learnt. So it has learnt most only if it has also halved (`HALF`) what the first
model that was measured got wrong. The price: a run whose first measured model has converged already is told as one
that learns nothing, as nothing tells the two apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.plain_json import number

MOST = 0.8  # of what the untrained model gets wrong: who has learnt so much may have converged
HALF = 0.5  # of what the first measured model gets wrong
NEAR = 0.05  # of what was learnt: so far below the best is still near it
GROUPS = ("central", "federated")


@dataclass(frozen=True)
class Learning:
    """The accuracy in the ``latest`` round, None where it was not measured, and what to compare it with.

    It is that of the ``group`` "central", or else of "federated", the mean of the clients'. ``untrained`` is that of
    the initial model, 0 where it was not measured, and ``first`` that of the first model of which it is a number.
    ``best`` is the best so far, of round ``found``. ``good`` is the last round that did well.
    """

    group: str = ""
    latest: float | None = None
    untrained: float = 0.0
    first: float = math.nan
    best: float = -math.inf
    found: int = 0
    good: int = 0

    def after(self, line: Mapping[str, Any]) -> Learning:
        """Return the state after another round, given as its line of ``metrics.jsonl``."""
        group = next((name for name in GROUPS if "accuracy" in (line[name] or {})), "")
        if not group or (group, self.group) == ("federated", "central"):
            return replace(self, latest=None)
        round, accuracy = int(line["round"]), number(line[group]["accuracy"])
        before = self if group == self.group else Learning(group, good=round)
        untrained = accuracy if round == 0 and math.isfinite(accuracy) else before.untrained
        first = before.first if math.isfinite(before.first) else accuracy
        known = replace(before, latest=accuracy, untrained=untrained, first=first)
        if accuracy > known.best:  # false for NaN
            return replace(known, best=accuracy, found=round, good=round)
        return replace(known, good=round) if known._is_converged() else known

    def _is_converged(self) -> bool:
        learnt = self.best - self.untrained
        enough = learnt >= MOST * (1 - self.untrained) and self.best - self.first >= HALF * (1 - self.first)
        return enough and self.latest is not None and self.latest >= self.best - NEAR * learnt
