"""Optuna's part of a sweep: the study, who draws what, and in which order.

Every draw has a sampler of its own, seeded by (seed, draw): a sweep that was stopped draws on as if it had not been, a
draw stays the same when [grid] grows, and with "random" each combination of the grid meets the same values.
"""

from __future__ import annotations

import math

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from app.config import Value
from simulation.sweep.plan import Plan
from simulation.sweep.sections import Choices, Draw, Range

_DIGITS = 4


def new_study(plan: Plan) -> optuna.Study:
    """Return a study that knows nothing yet, with the plan's rule for stopping early."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rule = plan.halving
    pruner = (
        optuna.pruners.NopPruner()
        if rule is None
        else optuna.pruners.SuccessiveHalvingPruner(min_resource=rule.min_rounds, reduction_factor=rule.factor)
    )
    return optuna.create_study(direction=plan.metric.direction, pruner=pruner)


def sampler_of(plan: Plan, draw: int) -> optuna.samplers.BaseSampler:
    """Return what draws one configuration of each combination of the grid."""
    seed = int(np.random.SeedSequence([_seed(plan), draw]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=seed) if plan.sampler == "tpe" else optuna.samplers.RandomSampler(seed=seed)


def _seed(plan: Plan) -> int:
    return int(plan.base.get("seed", 0))


def order_of(plan: Plan) -> list[tuple[int, dict[str, Value]]]:
    """Return which draw meets which combination, in the order of the runs.

    With halving the order is shuffled: the first ones are hardly ever stopped, and a grid that climbs to its best value
    would have nothing to stop.
    """
    combinations = plan.combinations()
    orders = [np.arange(len(combinations))] * plan.draws
    if plan.halving is not None:
        orders = [np.random.default_rng([_seed(plan), draw]).permutation(order) for draw, order in enumerate(orders)]
    return [(draw, combinations[position]) for draw, order in enumerate(orders) for position in order]


def distributions(plan: Plan) -> dict[str, BaseDistribution]:
    """Return what Optuna is to know of the keys that vary."""
    fixed: dict[str, BaseDistribution] = {key: CategoricalDistribution(values) for key, values in plan.grid.items()}
    return fixed | {key: _distribution(draw) for key, draw in plan.random.items()}


def _distribution(draw: Draw) -> BaseDistribution:
    if isinstance(draw, Choices):
        return CategoricalDistribution(draw.values)
    if draw.whole:
        return IntDistribution(int(draw.low), int(draw.high), log=draw.log)
    return FloatDistribution(draw.low, draw.high, log=draw.log)


def written_down(draw: Draw | None, value: Value) -> Value:
    """Return a drawn number with four digits, so that a person can write it down; never outside its bounds."""
    if not isinstance(draw, Range) or not isinstance(value, float) or value == 0:
        return value
    rounded = round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))
    return min(max(rounded, draw.low), draw.high)
