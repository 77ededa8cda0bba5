"""What an audit has found, beside what the accountants promise: as a file, a table and one plain sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from app.plain_json import number
from strategies.privacy.accounting import Epsilons
from strategies.privacy.audit import Finding


@dataclass(frozen=True)
class Outcome:
    """The findings of so many ``canaries`` in a model of so many ``weights``, which has moved in so many ``rounds``.

    Both bounds together hold with the ``confidence``. ``promised`` is the accountants' epsilon at the same ``delta``,
    None of a run without differential privacy.
    """

    canaries: int
    weights: int
    rounds: int
    delta: float
    confidence: float
    promised: Epsilons | None
    final_model: Finding
    all_models: Finding

    @property
    def bound(self) -> float:
        """The epsilon that is proved."""
        return max(self.final_model.bound, self.all_models.bound)

    @property
    def broken(self) -> bool:
        """Whether more is proved than was promised."""
        return self.promised is not None and self.bound > self.promised.tightest

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        sizes = ("canaries", "weights", "rounds", "delta", "confidence")
        return {
            **{name: getattr(self, name) for name in sizes},
            "promised": None if self.promised is None else {"rdp": self.promised.rdp, "pld": self.promised.pld},
            "final-model": vars(self.final_model),
            "all-models": vars(self.all_models),
            "meaning": self.sentence(),
        }

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Outcome:
        """Read what `to_json` gave, also after a journey through `app.plain_json`."""
        return cls(
            canaries=int(told["canaries"]),
            weights=int(told["weights"]),
            rounds=int(told["rounds"]),
            delta=float(told["delta"]),
            confidence=float(told["confidence"]),
            promised=_epsilons(told["promised"]),
            final_model=_finding(told["final-model"]),
            all_models=_finding(told["all-models"]),
        )

    def sentence(self) -> str:
        """Say what it means."""
        least = f"an epsilon of at least {self.bound:.3g}" if self.bound > 0 else "no epsilon above 0"
        proof = f"the canaries prove {least} ({100 * self.confidence:g} % confidence, delta {self.delta:g})"
        if self.promised is None:
            return f"No privacy was promised; {proof}."
        if not math.isfinite(self.promised.tightest):
            return f"No privacy, as there is no noise; {proof}."
        if self.broken:
            return (
                f"The promise is broken: {proof}, but {self.promised.tightest:.4g} was accounted. The noise, the "
                "clipping or the accounting is wrong."
            )
        return (
            f"Nothing contradicts the epsilon of {self.promised.tightest:.4g} that was accounted: {proof}. That it is "
            "not more, no audit proves."
        )

    def table(self) -> Table:
        """Return estimate and lower bound of what is seen, beside the accountants' upper bounds."""
        rdp, pld = (None, None) if self.promised is None else (self.promised.rdp, self.promised.pld)
        bound = f"lower bound ({100 * self.confidence:g} %)"
        rows = Table("what is seen", "estimate", bound, "RDP", "PLD", header_style="bold")
        for seen, finding in (("the final model", self.final_model), ("the models of all rounds", self.all_models)):
            rows.add_row(seen, f"{finding.estimate:.4g}", f"{finding.bound:.4g}", _promise(rdp), _promise(pld))
        return rows


def _epsilons(told: Mapping[str, Any] | None) -> Epsilons | None:
    if told is None:
        return None
    return Epsilons(number(told["rdp"]), None if told["pld"] is None else number(told["pld"]))


def _finding(told: Mapping[str, Any]) -> Finding:
    return Finding(number(told["estimate"]), number(told["bound"]))


def _promise(epsilon: float | None) -> str:
    if epsilon is None:
        return "-"
    return f"{epsilon:.4g}" if math.isfinite(epsilon) else "no privacy"
