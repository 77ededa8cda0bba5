"""The strategies by name, and the parts that they and the keys of a run config name.

A strategy names the parts that make it what it is; all others are those that the run config chooses ('selection',
'aggregator', 'codec', 'privacy', 'server-optimizer'), or FedAvg's (McMahan et al., "Communication-Efficient Learning of
Deep Networks from Decentralized Data", 2017). Each part reads its own keys: a new one is a class with a classmethod
``of`` and a line here, or in the registry of codecs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from strategies.aggregators import Aggregator, WeightedMean
from strategies.composition import Composition, NoPrivacy, Privacy
from strategies.compression.downlink import downlink_of
from strategies.compression.feedback import uplink_codec
from strategies.errors import StrategyError
from strategies.fednova import NormalizedMean
from strategies.fedprox import FedProx
from strategies.local_objective import LocalObjective, PlainObjective
from strategies.options import Options, known, text
from strategies.pace import Buffered, Pace, Synchronous
from strategies.privacy.adaptive import AdaptiveDPFedAvg
from strategies.privacy.dp_fedavg import DPFedAvg
from strategies.privacy.dp_ftrl import DPFTRL
from strategies.privacy.local_dp import LocalDP
from strategies.robust import (
    Bulyan,
    CenteredClipping,
    CoordinateMedian,
    GeometricMedian,
    Guarded,
    Krum,
    TrimmedMean,
)
from strategies.samplers import (
    CyclicSampler,
    PoissonSampler,
    PowerOfChoice,
    Sampler,
    UniformSampler,
    WeightedSampler,
)
from strategies.scaffold import Scaffold
from strategies.server_optimizers import (
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedYogi,
    KerasOptimizer,
    ServerOptimizer,
    ServerSGD,
)
from strategies.server_optimizers.keras_optimizer import NAMES, PREFIX

SAMPLERS: dict[str, Callable[[Options], Sampler]] = {
    "uniform": UniformSampler.of,
    "poisson": PoissonSampler.of,
    "weighted": WeightedSampler.of,
    "power-of-choice": PowerOfChoice.of,
    "cyclic": CyclicSampler.of,
}
OBJECTIVES: dict[str, Callable[[Options], LocalObjective]] = {
    "plain": PlainObjective.of,
    "fedprox": FedProx.of,
    "scaffold": Scaffold.of,
}
AGGREGATORS: dict[str, Callable[[Options], Aggregator]] = {
    "mean": WeightedMean.of,
    "uniform-mean": WeightedMean.uniform_of,
    "normalized-mean": NormalizedMean.of,
    "trimmed-mean": TrimmedMean.of,
    "median": CoordinateMedian.of,
    "geometric-median": GeometricMedian.of,
    "krum": Krum.one,
    "multi-krum": Krum.several,
    "bulyan": Bulyan.of,
    "centered-clipping": CenteredClipping.of,
}
PRIVACY: dict[str, Callable[[Options], Privacy]] = {
    "none": NoPrivacy.of,
    "dp-fedavg": DPFedAvg.of,
    "dp-fedavg-adaptive": AdaptiveDPFedAvg.of,
    "local-dp": LocalDP.of,
    "dp-ftrl": DPFTRL.by_tree,
    "dp-mf": DPFTRL.by_bands,
}
SERVER_OPTIMIZERS: dict[str, Callable[[Options], ServerOptimizer]] = {
    "sgd": ServerSGD.of,
    "fedavgm": FedAvgM.of,
    "fedadagrad": FedAdagrad.of,
    "fedadam": FedAdam.of,
    "fedyogi": FedYogi.of,
    **dict.fromkeys((f"{PREFIX}{name}" for name in NAMES), KerasOptimizer.of),
}
PACES: dict[str, Callable[[Options], Pace]] = {
    "synchronous": Synchronous.of,
    "buffered": Buffered.of,
}

STRATEGIES: dict[str, Mapping[str, str]] = {
    "bulyan": {"aggregator": "bulyan"},
    "centered-clipping": {"aggregator": "centered-clipping"},
    "dp-fedavg": {"selection": "poisson", "aggregator": "uniform-mean", "privacy": "dp-fedavg"},
    "dp-fedavg-adaptive": {"selection": "poisson", "aggregator": "uniform-mean", "privacy": "dp-fedavg-adaptive"},
    "dp-ftrl": {"selection": "cyclic", "aggregator": "uniform-mean", "privacy": "dp-ftrl"},
    "dp-mf": {"selection": "cyclic", "aggregator": "uniform-mean", "privacy": "dp-mf"},
    "fedadagrad": {"server-optimizer": "fedadagrad"},
    "fedadam": {"server-optimizer": "fedadam"},
    "fedavg": {},
    "fedavgm": {"server-optimizer": "fedavgm"},
    "fedbuff": {"pace": "buffered"},
    "fednova": {"aggregator": "normalized-mean"},
    "fedprox": {"objective": "fedprox"},
    "fedyogi": {"server-optimizer": "fedyogi"},
    "geometric-median": {"aggregator": "geometric-median"},
    "krum": {"aggregator": "krum"},
    "local-dp": {"aggregator": "uniform-mean", "privacy": "local-dp"},
    "median": {"aggregator": "median"},
    "multi-krum": {"aggregator": "multi-krum"},
    "scaffold": {"objective": "scaffold", "aggregator": "uniform-mean"},
    "trimmed-mean": {"aggregator": "trimmed-mean"},
}

Part = TypeVar("Part")


def build(name: str, options: Options) -> Composition:
    """Return the strategy of this name, made from the options it knows; those it does not use are ignored.

    Raises StrategyError for an unknown name, an option of the wrong type or out of bounds, or parts that do not go
    together.
    """
    named, options = known("strategy", name, STRATEGIES), {**options, "strategy": name}

    def part(key: str, parts: Mapping[str, Callable[[Options], Part]], usual: str) -> Part:
        chosen = text(options, key, "")
        if chosen and key in named and chosen != named[key]:
            raise StrategyError(
                f"The key '{key}' is '{chosen}', but the strategy '{name}' is made of '{named[key]}': leave it empty, "
                "or set 'strategy' to 'fedavg'."
            )
        return known(key, named.get(key) or chosen or usual, parts)(options)

    return Composition(
        name=name,
        sampler=part("selection", SAMPLERS, "uniform"),
        objective=part("objective", OBJECTIVES, "plain"),
        codec=uplink_codec(options),
        aggregator=Guarded.around(part("aggregator", AGGREGATORS, "mean"), options),
        privacy=part("privacy", PRIVACY, "none"),
        server_optimizer=part("server-optimizer", SERVER_OPTIMIZERS, "sgd"),
        pace=part("pace", PACES, "synchronous"),
        downlink=downlink_of(options),
    )
