"""Admission: no reply can hurt a run, because each is judged before it is added.

The order of the checks is fixed, so that a reply that is wrong in two ways is always counted under the same reason.
Metrics are not judged: they are only reported, and `strategies.updates.mean_metrics` leaves out what is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from strategies.errors import StrategyError
from strategies.fixed_point import BLOCK, MAX_WEIGHT, MIN_WEIGHT
from strategies.updates import FloatVector, PartialSum, Update

NOTHING: Mapping[str, int] = MappingProxyType({})


class Reason(StrEnum):
    """Why a reply did not count; the values are the keys under which rejections are counted."""

    ERROR = "error"
    LATE = "late"
    NOT_SENT = "not-sent"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    SHAPE = "shape"
    DTYPE = "dtype"
    NOT_FINITE = "not-finite"
    WEIGHT = "weight"
    NORM = "norm"
    DROPOUT = "dropout"
    SURPLUS = "surplus"
    STALE = "stale"
    ZEROED = "zeroed"
    NOISE = "noise"
    NO_REFERENCE = "no-reference"


@dataclass(frozen=True)
class Limits:
    """What is still believed of a client.

    ``max_weight`` (examples) is the largest weight; ``max_norm`` the largest Euclidean norm of a delta, 0 = no limit;
    ``max_contribution`` the largest ``max(1, weight) * max|delta|``, 1 being what a client counts where all count the
    same. With `fixed_point.share` of the cohort's size, no client can use up the range of the sum and so shut out the
    others, whatever the order of replies.
    """

    max_weight: float
    max_norm: float = 0.0
    max_contribution: float = math.inf

    def __post_init__(self) -> None:
        if not MIN_WEIGHT <= self.max_weight <= MAX_WEIGHT:
            raise StrategyError(f"The key 'max-client-examples' is {self.max_weight}, but must be from 1 to 2^53.")
        if not 0 <= self.max_norm < math.inf:
            raise StrategyError(f"The key 'max-update-norm' is {self.max_norm}, but must be 0 (no limit) or more.")

    def allow_weight(self, weight: float) -> bool:
        """Tell whether a weight is finite, at most ``max_weight`` and not so small that it rounds away (2^-16)."""
        return MIN_WEIGHT <= weight <= self.max_weight  # false for NaN


def judge(update: Update, size: int, limits: Limits, described: Mapping[str, int] = NOTHING) -> Reason | None:
    """Return why this update must not count, None if it may; ``size`` is the length of the model's flat vector.

    ``described`` holds how many examples clients said to have before the training: none may weigh more than that.
    """
    delta = update.delta
    if not isinstance(delta, np.ndarray):
        return Reason.MALFORMED
    if delta.dtype != np.float32:
        return Reason.DTYPE
    if delta.shape != (size,):
        return Reason.SHAPE
    largest = update.largest
    if not math.isfinite(largest):
        return Reason.NOT_FINITE
    if not _allow_weight(update.client, update.weight, limits, described):
        return Reason.WEIGHT
    if max(1.0, update.weight) * largest > limits.max_contribution:
        return Reason.NORM
    if limits.max_norm and _may_exceed(largest, size, limits.max_norm) and norm(delta) > limits.max_norm:
        return Reason.NORM
    return None


def judge_partial(
    partial: PartialSum, size: int, limits: Limits, described: Mapping[str, int] = NOTHING
) -> Reason | None:
    """Return why a partial sum must not count: what no clients that each keep the limits could have summed up to.

    One client in it can still be as bad as the limits let all of them be together: where single clients of a node are
    not trusted, send single updates (``clients-per-message`` 1, or a rule that needs them).
    """
    total = partial.total
    if total.size != size:
        return Reason.SHAPE
    if not partial.weights:
        return Reason.MALFORMED
    if not all(_allow_weight(client, weight, limits, described) for client, weight in partial.weights.items()):
        return Reason.WEIGHT
    rounding = 2.0**-33 * total.count
    if total.largest() > limits.max_contribution * total.count + rounding:
        return Reason.NORM
    if limits.max_norm and total.norm() > limits.max_norm * total.total_weight() + rounding * math.sqrt(size):
        return Reason.NORM
    return None


def _allow_weight(client: str, weight: float, limits: Limits, described: Mapping[str, int]) -> bool:
    return limits.allow_weight(weight) and weight <= described.get(client, math.inf)


def _may_exceed(largest: float, size: int, max_norm: float) -> bool:
    """Tell whether a vector could be longer: sqrt(size) * max|delta| bounds the norm, and costs nothing."""
    return largest * math.sqrt(size) > max_norm * (1 - 2.0**-40)  # a margin above all roundings


def norm(delta: FloatVector) -> float:
    """Return the Euclidean norm in float64, in which no float32 vector overflows, in blocks of bounded memory."""
    blocks = (delta[start : start + BLOCK] for start in range(0, len(delta), BLOCK))
    return math.sqrt(math.fsum(float(np.sum(np.square(block, dtype=np.float64))) for block in blocks))
