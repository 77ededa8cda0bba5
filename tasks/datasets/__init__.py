"""Names of data sets and what loads them; ``load_data`` turns a `DataSpec` into federated data.

A new data set is a module here with ``load(argument, spec)`` and a line in `_LOADERS`. Modules are imported when they
are asked for: the digits must not wait for TensorFlow.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass

from tasks.data import FederatedData
from tasks.errors import TaskError, closest
from tasks.partition import Partition
from tasks.user_code import is_reference


@dataclass(frozen=True)
class DataSpec:
    """What decides federated data; hashable.

    ``test_fraction`` is held out as central test set where the data set brings none; ``client_test_fraction`` of each
    client's examples is its own test part. ``seed`` decides both cuts, and what is generated.
    """

    dataset: str
    partition: Partition
    test_fraction: float = 0.2
    client_test_fraction: float = 0.2
    seed: int = 0


# Name -> module. What stands after the colon of the data set's name is handed to its ``load`` as the argument.
_LOADERS = {
    "digits": "tasks.datasets.digits",
    "mnist": "tasks.datasets.keras_images",
    "fashion-mnist": "tasks.datasets.keras_images",
    "cifar10": "tasks.datasets.keras_images",
    "femnist": "tasks.datasets.femnist",
    "synthetic": "tasks.datasets.synthetic",
}
_LOADERS_WITH_ARGUMENT = {
    "synthetic": "tasks.datasets.synthetic",
    "npz": "tasks.datasets.npz",
    "tfrecord": "tasks.datasets.tfrecord",
}

NAMES = tuple(_LOADERS)


def load_data(spec: DataSpec) -> FederatedData:
    """Load a data set and cut it into clients.

    Raises `TaskError`: a sentence on what is wrong with the name, the files, the labels or the partition.
    """
    name, colon, argument = spec.dataset.partition(":")
    module = (_LOADERS_WITH_ARGUMENT if colon else _LOADERS).get(name)
    if module is None and is_reference(spec.dataset):
        module, argument = "tasks.datasets.user", spec.dataset
    if module is None or (colon and not argument):
        raise TaskError(_unknown(spec.dataset))
    data: FederatedData = importlib.import_module(module).load(argument, spec)
    return data


@functools.lru_cache(maxsize=4)
def kept_data(spec: DataSpec) -> FederatedData:
    """Return what `load_data` gives, loaded once in this process: files that change later are not read again."""
    return load_data(spec)


def _unknown(dataset: str) -> str:
    forms = {name: name for name in NAMES} | {"npz": "npz:PATH", "tfrecord": "tfrecord:DIR"}
    close = closest(dataset.partition(":")[0], forms)
    meant = f"did you mean '{forms[close]}'? " if close else ""
    return (
        f"There is no dataset '{dataset}': {meant}'dataset' is one of {', '.join(NAMES)}, synthetic:ALPHA,BETA, "
        "npz:PATH, tfrecord:DIR or module:function."
    )
