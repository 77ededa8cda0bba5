"""Every strategy gives one model to the bit: on one worker, two and inline, packed or not, in groups or one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.run_directory import RunDirectory
from strategies.registry import STRATEGIES
from tests.app.inline_runs import SMALL, Left
from tests.simulation.engines import FEDBUFF, warm_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COHORT = {**SMALL, "num-clients": 12, "clients-per-round": 8, "federated-evaluate-every": 0, "node-timeout": 30.0}
PARTIAL = {"local-epochs": 2, "straggler-share": 0.5, "stragglers": "partial"}
OPTIONS: dict[str, dict[str, Any]] = {
    "bulyan": {"attackers-tolerated": 1},
    "dp-fedavg": {"clipping-norm": 0.3, "noise-multiplier": 0.1, "per-layer-clipping": True},
    "dp-fedavg-adaptive": {"clipping-norm": 0.1, "noise-multiplier": 0.1},
    "dp-ftrl": {"clipping-norm": 0.3, "noise-multiplier": 0.1, "per-layer-clipping": True},
    "dp-mf": {"clipping-norm": 0.3, "noise-multiplier": 0.1},
    "fedbuff": FEDBUFF,
    "fednova": {**PARTIAL, "client-optimizer-args": "momentum=0.5"},
    "fedprox": {**PARTIAL, "proximal-mu": 0.5, "adaptive-mu": True},
    "krum": {"attackers-tolerated": 1},
    "multi-krum": {"attackers-tolerated": 1},
    "scaffold": PARTIAL,
}
MODELS = {"logistic": STRATEGIES, "cnn-small": ("fedavg", "fedbuff", "fednova", "fedprox", "scaffold")}
"""Clients of a tiny model train in groups, those of the other one by one."""

RUNS = [(model, strategy, packed) for model in MODELS for strategy in MODELS[model] for packed in (0, 1)]
ENGINES = {"two workers": ("ray", 2), "one worker": ("ray", 1), "inline": ("inline", 0)}

Run = tuple[str, str, int]


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[Run, str]]:
    """The digest of the model of each run on each engine, which is one process: to start one takes longest."""
    configs = [
        {**COHORT, "model": model, **OPTIONS.get(strategy, {}), "strategy": strategy, "clients-per-message": packed}
        for model, strategy, packed in RUNS
    ]
    folder = tmp_path_factory.mktemp("every-strategy")
    found = {}
    for engine, (kind, workers) in ENGINES.items():
        told = warm_runs(folder / engine.replace(" ", "-"), kind, configs, workers)
        left = [Left(RunDirectory(Path(run[0]))) for run in told[:-1]]
        found[engine] = dict(zip(RUNS, (run.digest() for run in left), strict=True))
    return found


@pytest.mark.parametrize(("model", "strategy"), [(model, strategy) for model in MODELS for strategy in MODELS[model]])
def test_engine_workers_and_packing_do_not_show(digests: dict[str, dict[Run, str]], model: str, strategy: str) -> None:
    runs = {(engine, packed): digests[engine][model, strategy, packed] for engine in ENGINES for packed in (0, 1)}
    assert len(set(runs.values())) == 1, runs


def test_each_is_a_strategy_of_its_own(digests: dict[str, dict[Run, str]]) -> None:
    models = {digests["inline"]["logistic", strategy, 0] for strategy in STRATEGIES}
    assert len(models) == len(STRATEGIES)
