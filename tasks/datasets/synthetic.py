"""Synthetic(alpha, beta): devices whose models and inputs differ by as much as one likes; 60 features, 10 classes.

Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (FedProx), section 5.1 and the authors' generator.
Device k has int(lognormal(4, 2)) + 50 examples and

    u_k ~ N(0, alpha)    W_k, b_k entries ~ N(u_k, 1)
    B_k ~ N(0, beta)     v_k entries ~ N(B_k, 1)
    x ~ N(v_k, diag(j ** -1.2)), j = 1..60    y = argmax(W_k x + b_k)

alpha and beta are standard deviations, as in the authors' code (the paper calls them variances; for 0 and 1 it is the
same). 'synthetic:iid' has v_k = 0, and one W and b for all. Unlike the authors', every device has a random stream of
its own, so that device k is the same whatever the number of devices.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.data import ArrayData, LabelledArrays
from tasks.datasets import DataSpec
from tasks.datasets.federate import federate
from tasks.errors import TaskError

FEATURES = 60
CLASSES = 10
MOST_EXAMPLES = 10_000_000
"""2.4 GB of float32; about 20,000 devices."""

Floats = npt.NDArray[np.float64]

_DEVIATIONS = np.arange(1, FEATURES + 1) ** (-1.2 / 2)


@dataclass(frozen=True)
class Heterogeneity:
    """How much devices differ: in their models (``alpha``) and inputs (``beta``); ``iid``: not at all."""

    alpha: float = 1.0
    beta: float = 1.0
    iid: bool = False


def load(argument: str, spec: DataSpec) -> ArrayData:
    """Generate ``spec.partition.num_clients`` devices, which are the clients whatever the kind of partition.

    ``argument`` is "" (for 1,1), "ALPHA,BETA" or "iid". As in every data set without a test part,
    ``spec.test_fraction`` of all devices' examples is the central test set. Raises `TaskError`.
    """
    heterogeneity = _parsed(argument, spec.dataset)
    devices = spec.partition.num_clients
    sizes = np.array([device_size(device, spec.seed) for device in range(devices)])
    if sizes.sum() > MOST_EXAMPLES:
        raise TaskError(
            f"dataset='{spec.dataset}' with num-clients={devices} has {sizes.sum()} examples, but at most "
            f"{MOST_EXAMPLES} are generated: lower 'num-clients'."
        )
    x, y = np.empty((sizes.sum(), FEATURES), np.float32), np.empty(sizes.sum(), np.int32)
    ends = np.cumsum(sizes)
    for device, (start, end) in enumerate(zip(ends - sizes, ends, strict=True)):
        x[start:end], y[start:end] = generate_device(heterogeneity, device, int(end - start), spec.seed)
    spec = dataclasses.replace(spec, partition=dataclasses.replace(spec.partition, kind="natural"))
    ids = np.repeat(np.arange(devices), sizes)
    return federate(spec.dataset, LabelledArrays(x, y), None, spec, natural_ids=ids, num_classes=CLASSES)


def device_size(device: int, seed: int) -> int:
    """Draw the number of examples of one device; at least 50."""
    return int(_random(seed, f"size/{device}").lognormal(4, 2)) + 50


def generate_device(
    heterogeneity: Heterogeneity, device: int, examples: int, seed: int
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Generate the examples of one device: x [examples, 60] and y [examples]."""
    random = _random(seed, f"device/{device}")
    if heterogeneity.iid:
        centre, model = np.zeros(FEATURES), _model(0.0, _random(seed, "model"))
    else:
        model = _model(random.normal(0, heterogeneity.alpha), random)
        centre = random.normal(random.normal(0, heterogeneity.beta), 1, FEATURES)
    x = centre + _DEVIATIONS * random.standard_normal((examples, FEATURES))
    weights, bias = model
    return x, np.argmax(x @ weights + bias, axis=1)


def _model(mean: float, random: np.random.Generator) -> tuple[Floats, Floats]:
    return random.normal(mean, 1, (FEATURES, CLASSES)), random.normal(mean, 1, CLASSES)


def _random(seed: int, purpose: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/synthetic/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _parsed(argument: str, dataset: str) -> Heterogeneity:
    if argument in ("", "iid"):
        return Heterogeneity(iid=argument == "iid")
    try:
        alpha, beta = map(float, argument.split(","))
    except ValueError:
        alpha = beta = math.nan
    if not (0 <= alpha < math.inf and 0 <= beta < math.inf):
        raise TaskError(
            f"dataset='{dataset}' must be 'synthetic', 'synthetic:ALPHA,BETA' with two numbers from 0, as in "
            "'synthetic:0.5,0.5', or 'synthetic:iid'."
        )
    return Heterogeneity(alpha, beta)
