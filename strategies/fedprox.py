"""FedProx: a proximal term keeps clients near the model that they were sent.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: "Federated Optimization in Heterogeneous Networks", 2020, algorithm 2: a
client minimises F_k(w) + mu/2 ||w - w_t||^2, however inexactly. The server sends mu; the term is part of the client's
compiled training. Partial work needs no rule: what a straggler has done by the deadline is an update as any other.

The adaptive mu is that of section 5.3.2: 0.1 more whenever the loss rises, 0.1 less whenever it has fallen five times
in a row, from 0, or from 1 where the data are IID. The loss there is that of the global model on all training data.
Here it is what clients report anyway, the mean over the examples of those that count, as they were seen in training:
it costs nothing, and is of another cohort in every round, so that mu moves also by the luck of the draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from flwr.app import ConfigRecordValues

from strategies import wire
from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.local_objective import Observation, Unobserved
from strategies.options import Options, flag, number
from strategies.updates import FloatVector, PartialSum, State, Update, mean_metrics

STEP = 0.1
PATIENCE = 5  # rounds in a row of falling loss
DECIMALS = 12  # to which mu is kept, so that ten steps up and ten down lead back


@dataclass(frozen=True)
class FedProx:
    """The proximal term with weight ``mu``; with ``adaptive`` that is the first one. A mu of 0 is FedAvg to the bit."""

    mu: float = 0.01
    adaptive: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.mu < math.inf:
            raise StrategyError(f"The key '{wire.PROXIMAL_MU}' is {self.mu}, but must be a finite number, 0 or more.")

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'proximal-mu' and 'adaptive-mu'."""
        return cls(number(options, wire.PROXIMAL_MU, 0.01), flag(options, "adaptive-mu", False))

    @property
    def guarantees(self) -> Guarantees:
        """The losses, which an adaptive mu learns from, come with partial sums too."""
        learns = {Property.NOTHING_ELSE} if self.adaptive else set()
        return Guarantees(gives=frozenset({Property.NODE_SUMS}), takes=frozenset(learns))

    def init(self, size: int) -> State:
        """Return the first mu, where it adapts."""
        return AdaptiveMu(self.mu).to_state() if self.adaptive else {}

    def config(self, state: State) -> dict[str, float]:
        """Return the round's mu."""
        return {wire.PROXIMAL_MU: AdaptiveMu.from_state(state).mu if self.adaptive else self.mu}

    def arrays(self, state: State) -> Mapping[str, FloatVector]:
        """Return no vectors: the weights themselves are the anchor."""
        return {}

    def start(self, state: State, settings: Mapping[str, ConfigRecordValues]) -> Observation:
        """Begin to collect losses, where mu adapts."""
        if not self.adaptive:
            return Unobserved()
        return Losses(AdaptiveMu.from_state(state), wire.limits_of(settings).max_weight)


@dataclass(frozen=True)
class AdaptiveMu:
    """The present mu, the last loss (NaN before the first), and how many times in a row it has fallen."""

    mu: float
    loss: float = math.nan
    falls: int = 0

    def after(self, loss: float) -> AdaptiveMu:
        """Return what a round of this loss makes of it."""
        if loss > self.loss:
            return AdaptiveMu(round(self.mu + STEP, DECIMALS), loss)
        falls = self.falls + 1 if loss < self.loss else 0
        if falls < PATIENCE:
            return AdaptiveMu(self.mu, loss, falls)
        return AdaptiveMu(max(0.0, round(self.mu - STEP, DECIMALS)), loss)

    def to_state(self) -> State:
        """Return it as arrays."""
        return {"mu": np.array([self.mu]), "loss": np.array([self.loss]), "falls": np.array([self.falls])}

    @classmethod
    def from_state(cls, state: State) -> AdaptiveMu:
        """Read what `to_state` gave."""
        return cls(state["mu"].item(), state["loss"].item(), state["falls"].item())


@dataclass
class Losses:
    """The losses of a round's clients, and how many examples each is of, of which ``most`` are believed."""

    before: AdaptiveMu
    most: float
    rows: list[tuple[float, Mapping[str, float]]] = field(default_factory=list)

    def check(self, update: Update) -> None:
        """Accept every update: one without a loss only says nothing of it."""

    def add(self, update: Update) -> None:
        """Note an update's loss."""
        self._note(update.metrics)

    def merge(self, partial: PartialSum) -> None:
        """Note the losses of several clients."""
        for metrics in partial.metrics.values():
            self._note(metrics)

    def state(self, population: int) -> State:
        """Return the next mu; it stays where nobody told a loss."""
        loss = mean_metrics(self.rows).get("loss")
        return (self.before if loss is None else self.before.after(loss)).to_state()

    def _note(self, metrics: Mapping[str, float]) -> None:
        """Weigh by examples even where the mean update does not: it stands for the loss on all data.

        Where a node adds up for its clients by uniform weights, admission has not seen what they claim.
        """
        examples = metrics.get(wire.NUM_EXAMPLES, math.nan)
        if 0 < examples <= self.most and "loss" in metrics:
            self.rows.append((examples, {"loss": metrics["loss"]}))
