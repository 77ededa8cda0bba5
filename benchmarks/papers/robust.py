"""Robust aggregation under attack: MNIST, the 2NN, 20 clients of which 4 attack, E = 1, B = 32, learning rate 0.1.

The rules are those of Yin et al. (2018: median and trimmed mean), Blanchard et al. (2017: Krum and Multi-Krum) and El
Mhamdi et al. (2018: Bulyan); the attacks sign flip times 4, Gaussian N(0, 1) in the place of the update, and ALIE with
z = 0.9 (Baruch et al., 2019). Figures are test accuracies after 15 rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.papers.lab import Keys, Lab, accuracy
from benchmarks.papers.table import Line

TITLE = "Robust aggregation, MNIST, the 2NN, 4 of 20 clients attack, 15 rounds: test accuracy"

SETTING: Keys = {
    "dataset": "mnist",
    "partition": "iid",
    "num-clients": 20,
    "client-test-fraction": 0.0,
    "federated-evaluate-every": 0,
    "evaluate-every": 15,
    "model": "mlp",
    "learning-rate": 0.1,
    "local-epochs": 1,
    "batch-size": 32,
    "num-rounds": 15,
    "clients-per-round": 0,
}
RULES: Mapping[str, Keys] = {
    "mean": {"aggregator": "mean"},
    "median": {"aggregator": "median"},
    "trimmed mean": {"aggregator": "trimmed-mean", "trim-beta": 0.2, "attackers-tolerated": 4},
    "Krum": {"aggregator": "krum", "attackers-tolerated": 4},
    "Multi-Krum": {"aggregator": "multi-krum", "attackers-tolerated": 4},
    "Bulyan": {"aggregator": "bulyan", "attackers-tolerated": 4},
}
IID, SKEWED = {"partition": "iid"}, {"partition": "dirichlet", "dirichlet-alpha": 0.5}
SETTINGS: Mapping[str, Keys] = {
    "no attack": {**IID},
    "sign flip x 4": {**IID, "attack": "sign-flip", "attack-scale": 4.0},
    "Gaussian N(0, 1)": {**IID, "attack": "gaussian", "attack-scale": 1.0},
    "ALIE z = 0.9": {**IID, "attack": "alie", "attack-scale": 0.9},
    "Dirichlet(0.5), no attack": {**SKEWED},
    "Dirichlet(0.5), sign flip x 4": {**SKEWED, "attack": "sign-flip", "attack-scale": 4.0},
}
LANDMARKS: Mapping[str, tuple[float | None, ...]] = {
    "no attack": (0.961, 0.961, 0.961, 0.935, 0.961, 0.961),
    "sign flip x 4": (0.135, 0.956, 0.954, 0.935, 0.961, 0.960),
    "Gaussian N(0, 1)": (0.79, 0.960, 0.961, 0.936, 0.961, 0.959),
    "ALIE z = 0.9": (0.961, 0.961, 0.962, 0.959, 0.961, 0.961),
    "Dirichlet(0.5), no attack": (0.952, 0.951, 0.952, 0.772, 0.949, None),
    "Dirichlet(0.5), sign flip x 4": (0.089, 0.926, 0.926, 0.768, 0.951, None),
}
"""In the order of `RULES`."""

LEAST = {"sign flip x 4": 0.945, "Dirichlet(0.5), sign flip x 4": 0.90}
CLOSE = 0.005


def reached(lab: Lab, setting: str, rule: str) -> float:
    """Return the test accuracy at the end of one run."""
    return accuracy(lab.records({**SETTING, **SETTINGS[setting], **RULES[rule]})[-1])


def lines(lab: Lab, settings: Sequence[str] = tuple(SETTINGS), rules: Sequence[str] = tuple(RULES)) -> Iterator[Line]:
    """Yield a line for each rule in each setting."""
    for setting in settings:
        mean = None
        for rule, landmark in zip(RULES, LANDMARKS[setting], strict=True):
            if rule in rules:
                ours = reached(lab, setting, rule)
                mean = ours if rule == "mean" else mean
                yield _line(setting, rule, landmark, ours, mean)


def quick_lines(lab: Lab) -> Iterator[Line]:
    """Yield what is judged of IID clients with flipped signs."""
    return lines(lab, ["sign flip x 4"], ["mean", "median", "trimmed mean"])


def _line(setting: str, rule: str, landmark: float | None, ours: float, mean: float | None) -> Line:
    must_be, passed = "", None
    if setting in LEAST and rule == "mean":
        must_be, passed = "below 0.5", ours < 0.5
    elif setting in LEAST and rule in ("median", "trimmed mean"):
        must_be, passed = f"at least {LEAST[setting]}", ours >= LEAST[setting]
    elif setting == "no attack" and rule == "trimmed mean" and mean is not None:
        must_be, passed = f"within {CLOSE} of the mean", abs(ours - mean) <= CLOSE
    return Line(f"{setting}: {rule}", "", "" if landmark is None else f"{landmark:.3f}", f"{ours:.3f}", must_be, passed)
