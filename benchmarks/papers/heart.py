"""Heart disease in four hospitals: FLamby's Fed-Heart-Disease, cross-silo.

Ogier du Terrail et al., "FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning in Realistic Healthcare
Settings", 2022: logistic regression 13 -> 1, B = 4, 15 rounds of 100 updates, learning rate 0.001, every value
normalised hospital by hospital; the mean of the four hospitals' accuracies on their own test patients.

So few and small steps leave a model near where it began: the paper's begin where PyTorch's linear layer does, within
1 / sqrt(13) of 0. Our preset begins at 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.papers.lab import Keys, Lab, data_folder, preset
from benchmarks.papers.table import Line

if TYPE_CHECKING:
    import keras

TITLE = "FLamby Fed-Heart-Disease, four hospitals: mean accuracy over the hospitals"
SEEDS = (0, 1, 2, 3, 4)
PAPER = {"cleveland": 0.731, "hungarian": 0.719, "switzerland": 0.650, "va": 0.640}
QUERY = "?x=x_percenter_norm&client=center&test=test&client-names=centers"


PYTORCH: Keys = {"model": "benchmarks.papers.heart:pytorchs_logistic"}


def pytorchs_logistic(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return logistic regression that begins as ``torch.nn.Linear(13, 1)`` does."""
    import keras

    bound = input_shape[0] ** -0.5
    uniform = [keras.initializers.RandomUniform(-bound, bound) for _ in range(2)]
    outputs = 1 if num_classes == 2 else num_classes
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(outputs, None, True, *uniform)])


def keys() -> Keys:
    """Return the preset, with the data where they lie here."""
    file = data_folder() / "heart_disease_uci" / "fed_heart_flamby_split.npz"
    return {**preset("four-hospitals"), "dataset": f"npz:{file}{QUERY}"}


def accuracies(lab: Lab, strategy: Keys, seeds: Sequence[int] = SEEDS) -> dict[str, float]:
    """Return each hospital's accuracy at the end, the mean over the seeds."""
    runs = []
    for seed in seeds:
        scores = lab.records({**keys(), **strategy, "seed": seed})[-1].federated
        assert scores is not None  # the preset evaluates in every round
        runs.append(dict(zip(scores.clients, scores.accuracies, strict=True)))
    return {hospital: fmean(run[hospital] for run in runs) for hospital in runs[0]}


def lines(lab: Lab, seeds: Sequence[int] = SEEDS) -> Iterator[Line]:
    """Yield FedAvg and FedProx, FedAvg's hospitals one by one, and our preset, in which no seed shows."""
    fedavg = accuracies(lab, PYTORCH, seeds)
    yield _judged("FedAvg", "0.707", fedavg)
    for hospital, reached in fedavg.items():
        yield Line(f"FedAvg, {hospital}", f"{PAPER[hospital]:.3f}", "", f"{reached:.3f}")
    fedprox: Keys = {"strategy": "fedprox", "proximal-mu": 0.1}
    yield _judged("FedProx, mu = 0.1", "", accuracies(lab, {**PYTORCH, **fedprox}, seeds))
    yield _judged("FedAvg from 0", "", accuracies(lab, {}, seeds[:1]))


def _judged(name: str, landmark: str, reached: dict[str, float]) -> Line:
    mean = fmean(reached.values())
    return Line(name, "0.685", landmark, f"{mean:.3f}", "0.66 to 0.74", 0.66 <= mean <= 0.74)
