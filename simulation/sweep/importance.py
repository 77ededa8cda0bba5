"""Which keys account for the differences: fANOVA, as Optuna computes it.

Hutter, Hoos, Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014. Only
configurations that were run to their end count; with fewer than eight of them the answer would be noise: there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from simulation.sweep.plan import Plan
from simulation.sweep.proposals import distributions
from simulation.sweep.results import Result, completed

LEAST = 8


def importance(plan: Plan, results: Sequence[Result]) -> dict[str, float]:
    """Return the share of the variance of the metric that each key accounts for; empty where it cannot be told."""
    done = completed(results)
    if len(plan.keys) < 2 or len(done) < LEAST or len({result.median for result in done}) < 2:
        return {}
    study = optuna.create_study(direction=plan.metric.direction)
    spaces = distributions(plan)
    for result in done:
        values = dict(result.configuration.values)
        study.add_trial(optuna.trial.create_trial(params=values, distributions=spaces, value=result.median))
    found = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
    )
    return {key: float(share) for key, share in found.items()}
