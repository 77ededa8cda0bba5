"""Server optimizers on Fashion-MNIST: what server momentum gains over FedAvg.

Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019, do it
on CIFAR-10; this setting is smaller: the 2NN, 100 clients by Dirichlet(1), 10 a round, E = 1, B = 64, learning rate
0.003, 100 rounds. The adaptive optimizers of Reddi et al. (2021) stand beside it, at server learning rates of 10^-2.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.papers.lab import Keys, Lab, accuracy
from benchmarks.papers.table import Line

TITLE = "Server optimizers, Fashion-MNIST, the 2NN, 100 rounds: test accuracy"
GAIN = 0.05

SETTING: Keys = {
    "dataset": "fashion-mnist",
    "partition": "dirichlet",
    "dirichlet-alpha": 1.0,
    "num-clients": 100,
    "client-test-fraction": 0.0,
    "federated-evaluate-every": 0,
    "evaluate-every": 100,
    "model": "mlp",
    "learning-rate": 0.003,
    "local-epochs": 1,
    "batch-size": 64,
    "num-rounds": 100,
    "clients-per-round": 10,
}
OTHERS: tuple[tuple[str, str, Keys], ...] = (
    ("FedAvgM 0.9, Nesterov", "0.827", {"strategy": "fedavgm", "server-nesterov": True}),
    ("FedAvgM 0.9, plain", "0.811", {"strategy": "fedavgm"}),
)
UNJUDGED: tuple[tuple[str, str, Keys], ...] = (
    ("FedAvg, client rate 0.03", "0.831", {"learning-rate": 0.03}),
    ("FedAdagrad 0.01", "", {"strategy": "fedadagrad", "server-learning-rate": 0.01}),
    ("FedAdam 0.01", "", {"strategy": "fedadam", "server-learning-rate": 0.01}),
    ("FedYogi 0.01", "", {"strategy": "fedyogi", "server-learning-rate": 0.01}),
)


def lines(lab: Lab) -> Iterator[Line]:
    """Yield FedAvg, and the others beside it."""
    plain = _accuracy(lab, {})
    yield Line("FedAvg", "", "0.739", f"{plain:.3f}")
    for name, landmark, keys in OTHERS:
        reached = _accuracy(lab, keys)
        rule = f"at least FedAvg + {GAIN}"
        yield Line(name, "", landmark, f"{reached:.3f}", rule, reached >= plain + GAIN)
    for name, landmark, keys in UNJUDGED:
        yield Line(name, "", landmark, f"{_accuracy(lab, keys):.3f}")


def _accuracy(lab: Lab, keys: Keys) -> float:
    return accuracy(lab.records({**SETTING, **keys})[-1])
