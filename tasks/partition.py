"""Cuts examples into clients by their labels alone, giving index arrays, which are kept on disk.

The kinds, and what each of them guarantees, stand in `tasks.dealing`. After dealing, clients with fewer than
``min_examples`` examples are filled up from the largest ones (`tasks.top_up`). The result depends on labels, natural
ids and the `Partition` only: not on the process, its global generators, or what is in the cache.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.errors import TaskError, did_you_mean

KINDS = ("iid", "dirichlet", "pathological", "shards", "quantity", "natural")

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.integer]
Ids = npt.NDArray[np.generic]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Partition:
    """How examples are dealt to clients; hashable. The fields are run-config keys (``kind`` is 'partition').

    ``min_examples`` ('min-client-examples') is the least that a client is left with, test part included.
    ``num_clients`` has no meaning for the kind 'natural'.
    """

    kind: str = "dirichlet"
    num_clients: int = 50
    dirichlet_alpha: float = 0.5
    classes_per_client: int = 2
    quantity_skew: float = 1.0
    min_examples: int = 2
    seed: int = 0


def partition_indices(labels: Labels, partition: Partition, natural_ids: Ids | None = None) -> dict[str, Indices]:
    """Return each client's examples, as sorted indices into ``labels``.

    Client ids are "0".."n-1", or with the kind 'natural' the ids in ``natural_ids`` [n] (whole numbers or strings), in
    sorted order; those with fewer than ``min_examples`` examples are left out with a warning, since nobody else's
    examples can fill them up. Every index occurs once, but for those clients, and for classes that the kind
    'pathological' has no place for (also with a warning). Raises `TaskError`.
    """
    from tasks.partition_cache import kept_partition  # which uses this module's names

    labels = np.ascontiguousarray(labels)
    _check_parameters(partition)
    if partition.kind == "natural":
        natural_ids = _natural_ids(labels, natural_ids)
    else:
        natural_ids = None
        _check_sizes(labels, partition)
    parts = kept_partition(labels, partition, natural_ids)
    missing = len(labels) - sum(map(len, parts.values()))
    if missing:
        _log.warning(_what_is_missing(missing, len(labels), partition))
    return parts


def _check_parameters(partition: Partition) -> None:
    if partition.kind not in KINDS:
        hint = did_you_mean(partition.kind, KINDS)
        raise TaskError(f"partition='{partition.kind}' is not known{hint}: use one of {', '.join(KINDS)}.")
    limits: dict[str, tuple[float, float]] = {
        "num-clients": (partition.num_clients, 1),
        "classes-per-client": (partition.classes_per_client, 1),
        "min-client-examples": (partition.min_examples, 1),
        "quantity-skew": (partition.quantity_skew, 0),
        "seed": (partition.seed, 0),
    }
    for key, (value, least) in limits.items():
        if not (math.isfinite(value) and value >= least):
            raise TaskError(f"{key}={value} is not allowed: '{key}' must be at least {least}.")
    if not (math.isfinite(partition.dirichlet_alpha) and partition.dirichlet_alpha > 0):
        raise TaskError(
            f"dirichlet-alpha={partition.dirichlet_alpha} is not allowed: 'dirichlet-alpha' must be above 0."
        )


def _natural_ids(labels: Labels, natural_ids: Ids | None) -> Ids:
    if natural_ids is None:
        raise TaskError(
            "partition='natural' needs a data set that says whose each example is, and this one does not: set "
            f"'partition' to one of {', '.join(KINDS[:-1])}."
        )
    if natural_ids.shape != labels.shape or natural_ids.dtype.kind not in "iuU":
        raise TaskError(
            f"partition='natural' needs one whole number or string per example as client id, but the ids have dtype "
            f"{natural_ids.dtype} and shape {list(natural_ids.shape)} for {len(labels)} examples: change the client "
            "ids of the data set."
        )
    return np.ascontiguousarray(natural_ids)


def _check_sizes(labels: Labels, partition: Partition) -> None:
    clients, least = partition.num_clients, partition.min_examples
    if clients > len(labels):
        raise TaskError(
            f"num-clients={clients} are more clients than the {len(labels)} examples there are to train on: lower "
            f"'num-clients' to {len(labels)} or fewer."
        )
    if clients * least > len(labels):
        raise TaskError(
            f"num-clients={clients} with min-client-examples={least} needs {clients * least} examples, but there are "
            f"{len(labels)} to train on: lower 'num-clients' or 'min-client-examples'."
        )


def _what_is_missing(missing: int, total: int, partition: Partition) -> str:
    if partition.kind == "natural":
        return (
            f"{missing} of {total} examples are left out, those of clients with fewer than "
            f"min-client-examples={partition.min_examples}."
        )
    return (
        f"{missing} of {total} examples are left out: num-clients={partition.num_clients} clients of "
        f"classes-per-client={partition.classes_per_client} classes cannot hold every class."
    )
