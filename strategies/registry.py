"""The strategies by name: each a few lines that put its parts together from the keys of a run config."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace

from strategies.aggregators import WeightedMean
from strategies.composition import Composition, Dense, NoPrivacy
from strategies.errors import StrategyError
from strategies.pace import Buffered
from strategies.samplers import UniformSampler
from strategies.server_optimizers import ServerSGD

Option = str | int | float | bool
Options = Mapping[str, Option]


def build(name: str, options: Options) -> Composition:
    """Return the strategy of this name, made from the options it knows; those it does not use are ignored.

    Raises StrategyError for an unknown name, an option of the wrong type or out of bounds, or parts that do not go
    together.
    """
    if name not in STRATEGIES:
        close = difflib.get_close_matches(name.lower(), STRATEGIES, n=1)
        hint = f": did you mean '{close[0]}'?" if close else "."
        raise StrategyError(f"The key 'strategy' is '{name}', but must be one of {sorted(STRATEGIES)}{hint}")
    return STRATEGIES[name](options)


def fedavg(options: Options) -> Composition:
    """FedAvg: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017."""
    return Composition(
        name="fedavg",
        sampler=UniformSampler(integer(options, "clients-per-round", 0), number(options, "over-selection", 1.0)),
        codec=Dense(),
        aggregator=WeightedMean(text(options, "weighting", "examples")),
        privacy=NoPrivacy(),
        server_optimizer=ServerSGD(number(options, "server-learning-rate", 1.0)),
    )


def fedbuff(options: Options) -> Composition:
    """FedBuff: Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", 2022.

    It waits for nobody, so that there is nothing to select more of; as many clients train at any time as FedAvg would
    ask in a round, where ``concurrency`` is 0.
    """
    per_round = integer(options, "clients-per-round", 0)
    pace = Buffered(
        integer(options, "buffer-size", 10),
        integer(options, "concurrency", 0) or per_round,
        number(options, "staleness-exponent", 0.5),
        integer(options, "max-staleness", 0),
    )
    return replace(fedavg(options), name="fedbuff", sampler=UniformSampler(per_round), pace=pace)


def integer(options: Options, key: str, default: int) -> int:
    """Return an option that must be a whole number."""
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise StrategyError(f"The key '{key}' is {value!r}, but must be a whole number.")
    return value


def number(options: Options, key: str, default: float) -> float:
    """Return an option that must be a number; a whole one will do."""
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StrategyError(f"The key '{key}' is {value!r}, but must be a number.")
    return float(value)


def text(options: Options, key: str, default: str) -> str:
    """Return an option that must be a string."""
    value = options.get(key, default)
    if not isinstance(value, str):
        raise StrategyError(f"The key '{key}' is {value!r}, but must be a string.")
    return value


STRATEGIES: dict[str, Callable[[Options], Composition]] = {
    "fedavg": fedavg,
    "fedbuff": fedbuff,
}
