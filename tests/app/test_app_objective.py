"""What clients minimise, in the whole app: where a term is nothing, the model is that of FedAvg to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.app.inline_runs import SMALL, start


@pytest.mark.parametrize("model", ["logistic", "mlp-dropout"])
def test_fedprox_with_mu_zero_is_fedavg_to_the_bit_and_with_another_it_is_not(tmp_path: Path, model: str) -> None:
    given = {**SMALL, "model": model}
    fedavg = start(tmp_path / "fedavg", given)
    fedprox = start(tmp_path / "fedprox", {**given, "strategy": "fedprox", "proximal-mu": 0.0})
    assert fedprox.digest() == fedavg.digest()
    assert [record["train"] for record in fedprox.records()] == [record["train"] for record in fedavg.records()]
    pulled = start(tmp_path / "pulled", {**given, "strategy": "fedprox", "proximal-mu": 1.0})
    assert pulled.digest() != fedavg.digest()


def test_a_large_mu_keeps_the_model_near_where_it_began(tmp_path: Path) -> None:
    given = {**SMALL, "num-rounds": 1, "local-epochs": 20, "learning-rate": 0.01}
    begun = start(tmp_path / "begun", {**given, "learning-rate": 1e-9}).model().get_weights()
    moved = {}
    for mu in (0.0, 100.0):  # x learning rate 0.01 = 1: each step begins with a return to the start
        left = start(tmp_path / str(mu), {**given, "strategy": "fedprox", "proximal-mu": mu})
        moved[mu] = max(float(np.abs(a - b).max()) for a, b in zip(left.model().get_weights(), begun, strict=True))
    assert moved[100.0] <= 0.011  # of one step: pixels and errors are at most 1
    assert moved[0.0] > 5 * moved[100.0]


def test_scaffold_without_control_variates_is_the_uniform_mean(tmp_path: Path) -> None:
    """In the first round all control variates are 0; both train a model that groups do not take, so one by one."""
    given = {**SMALL, "model": "mlp", "num-rounds": 1, "federated-evaluate-every": 0}
    uniform = start(tmp_path / "uniform", {**given, "weighting": "uniform"}).model().get_weights()
    scaffold = start(tmp_path / "scaffold", {**given, "strategy": "scaffold"}).model().get_weights()
    assert max(float(np.abs(a - b).max()) for a, b in zip(uniform, scaffold, strict=True)) <= 1e-6


def test_the_steps_that_clients_report_are_no_curve_of_the_run(tmp_path: Path) -> None:
    left = start(tmp_path, {**SMALL, "strategy": "fednova"})
    assert [sorted(record["train"]) for record in left.records() if record["round"]] == [["accuracy", "loss"]] * 2
