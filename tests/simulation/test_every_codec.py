"""Compressed runs give one model to the bit: on workers and inline, packed or not, with what clients have left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.run_directory import RunDirectory
from tests.app.inline_runs import SMALL, Left
from tests.simulation.test_simulate import FEDBUFF, warm_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COHORT = {
    **SMALL, "num-clients": 12, "clients-per-round": 8, "num-rounds": 3, "federated-evaluate-every": 0,
    "node-timeout": 30.0,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "top-k": {"codec": "top-k", "codec-share": 0.05},
    "deep gradient compression": {"codec": "top-k", "codec-share": 0.05, "error-feedback-momentum": 0.5},
    "sparse ternary": {"codec": "stc", "codec-share": 0.05, "strategy": "fedadam", "server-learning-rate": 0.01},
    "threshold": {"codec": "threshold", "strategy": "trimmed-mean"},
    "random-k": {"codec": "random-k", "codec-share": 0.2, "codec-quantization": "uniform", "codec-bits": 4},
    "qsgd": {"codec": "qsgd", "codec-bits": 2, "codec-rotation": True, "strategy": "fedprox"},
    "sign": {
        "codec": "sign",
        "strategy": "dp-fedavg",
        "clipping-norm": 0.3,
        "noise-multiplier": 0.1,
        "allow-unprotected-metrics": True,  # else nobody is told how short an update was
    },
    "drive": {"codec": "drive", "strategy": "local-dp", "clipping-norm": 0.3, "noise-multiplier": 0.01},
    "float16": {"codec": "float16", "downlink": "float16", **FEDBUFF},
    "both ways": {"codec": "stc", "codec-share": 0.05, "downlink": "qsgd"},
    "differences both ways": {
        "codec": "stc",
        "codec-share": 0.05,
        "downlink": "difference",
        "downlink-bits": 3,
        "num-rounds": 4,
    },
}
RUNS = [(name, packed) for name in OPTIONS for packed in (0, 1)]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[tuple[str, int], Left]]:
    """What each run has left, by engine, which is one process: to start one takes longest."""
    configs = [{**COHORT, **OPTIONS[name], "clients-per-message": packed} for name, packed in RUNS]
    folder = tmp_path_factory.mktemp("every-codec")
    found = {}
    for engine, workers in (("ray", 2), ("inline", 0)):
        told = warm_runs(folder / engine, engine, configs, workers)
        runs = [Left(RunDirectory(Path(run[0]))) for run in told[:-1]]
        found[engine] = dict(zip(RUNS, runs, strict=True))
    return found


@pytest.mark.parametrize("name", OPTIONS)
def test_engine_and_packing_do_not_show(left: dict[str, dict[tuple[str, int], Left]], name: str) -> None:
    digests = {(engine, packed): left[engine][name, packed].digest() for engine in left for packed in (0, 1)}
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("name", OPTIONS)
def test_updates_take_as_many_bytes_on_every_engine(left: dict[str, dict[tuple[str, int], Left]], name: str) -> None:
    """Where each client travels alone: of a message the clients share what it takes itself.

    To a few bytes: Flower writes down in each message when it was made, in as many digits as that takes.
    """
    inline, ray = ([record["uplink"] for record in left[engine][name, 1].records()[1:]] for engine in ("inline", "ray"))
    packed = [record["uplink"] for record in left["inline"][name, 0].records()[1:]]
    for alone, elsewhere, together in zip(inline, ray, packed, strict=True):
        assert alone == pytest.approx(elsewhere, abs=4)
        assert together["mean"] <= alone["mean"] <= alone["largest"]
        assert together["mean"] < together["dense"] == alone["dense"]
