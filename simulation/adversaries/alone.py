"""Attacks that a client makes by itself: it flips the sign, sends noise, sends NaN, or sends again what it once sent.

They claim the examples and metrics of an honest update, so that only the delta can give them away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simulation.adversaries.attack import Knowledge
from strategies.updates import Update


@dataclass(frozen=True)
class SignFlip:
    """The honest update times ``-scale``.

    Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from Heterogeneous
    Datasets", 2019, the sign-flipping attack of its experiments. There gradients are flipped, here what local training
    has made of them.
    """

    scale: float = 4.0

    def forge(self, known: Knowledge) -> Update:
        """Return ``-scale`` times the client's honest update."""
        own = known.own()
        return replace(own, delta=np.float32(-self.scale) * own.delta)


@dataclass(frozen=True)
class Gaussian:
    """Noise N(0, scale^2) in the place of the update.

    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", 2017, section 5
    ("Gaussian Byzantine"). There the standard deviation is 200, which no bound on norms lets through; here it is 1.
    """

    scale: float = 1.0

    def forge(self, known: Knowledge) -> Update:
        """Return noise as long as the client's honest update."""
        own = known.own()
        noise = known.chance.standard_normal(len(own.delta), dtype=np.float32)
        return replace(own, delta=np.float32(self.scale) * noise)


@dataclass(frozen=True)
class NotANumber:
    """NaN in every place: what a broken client sends too, and what one addition carries into the whole model."""

    def forge(self, known: Knowledge) -> Update:
        """Return NaN as long as the client's honest update."""
        own = known.own()
        return replace(own, delta=np.full_like(own.delta, np.nan))


@dataclass(frozen=True)
class Replay:
    """A stale update: what the client makes of the weights of the first round, again in every round.

    So it never adds anything that is new, and pulls a model that has learnt back along the way it came. It is the
    update that the client would have sent in round 1, also where it is asked later for the first time.
    """

    def forge(self, known: Knowledge) -> Update:
        """Return the update of the first round."""
        return known.first()


@dataclass(frozen=True)
class Honest:
    """No attack on the update: the harm is done by the data that it was trained on."""

    def forge(self, known: Knowledge) -> Update:
        """Return the client's update as it was trained."""
        return known.own()
