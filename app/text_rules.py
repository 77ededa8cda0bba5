"""What the run-config keys that hold text may be: each rule raises ValueError with the end of "..., but must be"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from app.config_sentences import one_of
from app.world_keys import device_classes, regions

DATASETS = ("digits", "mnist", "fashion-mnist", "cifar10", "femnist", "synthetic")
DATASET_PREFIXES = ("npz:", "tfrecord:", "synthetic:")
MODELS = ("logistic", "mlp", "mlp-dropout", "cnn-small", "cnn", "cnn-cifar")
OPTIMIZERS = (
    *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lamb", "lion", "muon", "nadam"),
    *("rmsprop", "schedulefreeadamw", "sgd"),
)
OTHER_DATA = "npz:PATH, tfrecord:DIR or module:function"
OTHER_MODEL = "module:function"

_OBJECT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_ARGUMENTS = re.compile(r"(\s*[A-Za-z_]\w*\s*=[^,=]+(,\s*[A-Za-z_]\w*\s*=[^,=]+)*)?")
_FILE_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})?")


def _file_name(value: str) -> None:
    if not _FILE_NAME.fullmatch(value):
        _refuse("empty or letters, digits, '.', '_' and '-', at most 100, not starting with a sign")


def _folder(value: str) -> None:
    if not value.strip():
        _refuse("the path of a folder")


def _dataset(value: str) -> None:
    prefix = next((prefix for prefix in DATASET_PREFIXES if value.startswith(prefix)), None)
    if prefix is None:
        _named_or_object(value, DATASETS, OTHER_DATA)
    elif value == prefix:
        _refuse(f"{prefix}... with something after the colon")


def _model(value: str) -> None:
    _named_or_object(value, MODELS, OTHER_MODEL)


def _named_or_object(value: str, names: tuple[str, ...], otherwise: str) -> None:
    if value not in names and not _OBJECT.fullmatch(value):
        _refuse(one_of(names, otherwise, given=value))


def _optimizer(value: str) -> None:
    if value.lower() not in OPTIMIZERS:
        _refuse(one_of(OPTIMIZERS, given=value))


def _arguments(value: str) -> None:
    if not _ARGUMENTS.fullmatch(value):
        _refuse('NAME=VALUE pairs with commas between them, as in "momentum=0.9,nesterov=true"')


def _strategy(value: str) -> None:
    from strategies.registry import STRATEGIES  # NumPy is only paid for when a config is really checked

    if value not in STRATEGIES:
        _refuse(one_of(tuple(STRATEGIES), given=value))


def _part(kind: str) -> Callable[[str], None]:
    """Return the rule of a key that names a part of a strategy, or is empty."""

    def rule(value: str) -> None:
        from strategies import registry

        parts: Mapping[str, object] = getattr(registry, kind)
        if value and value not in parts:
            _refuse(one_of(tuple(parts), "nothing", given=value))

    return rule


def _refuse(must_be: str) -> NoReturn:
    raise ValueError(must_be)


RULES: Mapping[str, Callable[[str], object]] = {
    "name": _file_name,
    "runs_dir": _folder,
    "dataset": _dataset,
    "model": _model,
    "client_optimizer": _optimizer,
    "client_optimizer_args": _arguments,
    "strategy": _strategy,
    "selection": _part("SAMPLERS"),
    "aggregator": _part("AGGREGATORS"),
    "privacy": _part("PRIVACY"),
    "server_optimizer": _part("SERVER_OPTIMIZERS"),
    "server_optimizer_args": _arguments,
    "device_classes": device_classes,
    "regions": regions,
}
"""By the name of the field; keys of text that are not here may be anything."""
