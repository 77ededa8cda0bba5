"""Differentially private FedAvg with adaptive clipping on FEMNIST by writer: accuracy by how much noise there is.

Andrew et al., "Differentially Private Learning with Adaptive Clipping", 2021, train on EMNIST with 3,400 writers; here
are the digits of 190, so few that the noise weighs much more: 50 of them in a round on average, by Poisson selection, a
fifth of each one's images as its test part, the 2NN, E = 1, B = 16, learning rate 0.05, server momentum 0.9, 100
rounds, the clipping norm from 0.1 on. Epsilon is that of the run's own ledger, at delta = 1e-3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from benchmarks.papers.lab import Keys, Lab, data_folder
from benchmarks.papers.table import Line

TITLE = "DP-FedAvg with adaptive clipping, FEMNIST digits of 190 writers, 100 rounds: accuracy on their test parts"
SEEDS = (0, 1, 2)
LANDMARKS: Mapping[float, str] = {0.0: "0.939", 0.25: "0.937", 0.5: "0.866", 1.0: "diverged"}
LEAST: Mapping[float, float] = {0.0: 0.92, 0.25: 0.92, 0.5: 0.82}

SETTING: Keys = {
    "partition": "natural",
    "test-fraction": 0.0,
    "client-test-fraction": 0.2,
    "model": "mlp",
    "learning-rate": 0.05,
    "local-epochs": 1,
    "batch-size": 16,
    "strategy": "dp-fedavg-adaptive",
    "server-optimizer": "fedavgm",
    "clients-per-round": 50,
    "num-rounds": 100,
    "clipping-norm": 0.1,
    "budget-delta": 1e-3,
    "evaluate-every": 0,
    "federated-evaluate-every": 100,
    "allow-unprotected-metrics": True,
}


def run(lab: Lab, noise: float, seed: int) -> tuple[float, float]:
    """Return the accuracy at the end, over all test images, and epsilon."""
    file = data_folder() / "femnist_digits_by_writer" / "femnist_digits_190.npz"
    last = lab.records({**SETTING, "dataset": f"npz:{file}", "noise-multiplier": noise, "seed": seed})[-1]
    assert last.federated is not None and last.privacy is not None  # by the setting
    return last.federated.summary()["accuracy"], last.privacy.epsilon


def lines(lab: Lab, noises: Sequence[float] = tuple(LANDMARKS), seeds: Sequence[int] = SEEDS) -> Iterator[Line]:
    """Yield a line for each noise multiplier: the mean over the seeds and each of them."""
    for noise in noises:
        runs = [run(lab, noise, seed) for seed in seeds]
        accuracies, (_, epsilon) = [accuracy for accuracy, _ in runs], runs[0]
        mean, least = fmean(accuracies), LEAST.get(noise)
        each = f" ({', '.join(f'{accuracy:.3f}' for accuracy in accuracies)})" if len(accuracies) > 1 else ""
        what = f"z = {noise:g}: epsilon {epsilon:.4g}" if noise else "z = 0: no privacy"
        rule = f"at least {least}" if least else ""
        yield Line(what, "", LANDMARKS[noise], f"{mean:.3f}{each}", rule, mean >= least if least else None)


def quick_lines(lab: Lab) -> Iterator[Line]:
    """Yield the noisiest of those that are judged, of one seed."""
    return lines(lab, (max(LEAST),), SEEDS[:1])
