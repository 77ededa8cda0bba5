"""Digits in four silos, to try out: as ``dataset = "tasks.datasets.demo:digits_silos"``, or as files for nodes.

TensorFlow is imported where TFRecord files are read or written, so that npz files are written without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.cache import cache_folder, whole_file
from tasks.datasets.handwritten import handwritten_digits
from tasks.errors import TaskError

if TYPE_CHECKING:
    from tasks.datasets.tfrecord import SiloData

NAME = "digits-silos"
SILOS = ("east", "north", "south", "west")

_VERSION = 1  # raise it when other files are written, so that nobody reads what older code left in the cache
_SEED = 20170216
_ALPHA = 3.0  # Dirichlet(3): every silo has every digit, some three times as often as others
_TEST_SHARE = 0.2

Part = tuple[np.ndarray, np.ndarray]


def digits_silos() -> SiloData:
    """Open the silos; the first call writes them into the cache folder. Several processes may call it at once.

    Raises TaskError where the cache folder cannot be written or the files there were damaged.
    """
    from tasks.datasets.tfrecord import open_silos

    folder = cache_folder() / f"{NAME}-{_VERSION}"
    if not folder.is_dir():
        _write(folder)
    return open_silos(folder, NAME)


def write_npz_silos(folder: Path) -> list[Path]:
    """Write ``<silo>.npz`` for each silo and ``held-out.npz``, a test set for the server; return the files.

    For the nodes of a deployment: each gets one file as its ``data-path``. Raises TaskError where the folder cannot be
    written.
    """
    silos, (x, y) = _dealt()
    held_out = folder / "held-out.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (own_x, own_y) in silos.items():
            with whole_file(folder / f"{name}.npz") as file:
                np.savez_compressed(file, x=_scaled(own_x), y=own_y)
        with whole_file(held_out) as file:
            np.savez_compressed(file, x=_scaled(x), y=y, test=np.ones(len(y), dtype=bool))
    except OSError as error:
        raise TaskError(f"No silos can be written to '{folder}' ({error.strerror}): name another folder.") from error
    return [*(folder / f"{name}.npz" for name in silos), held_out]


def _scaled(x: np.ndarray) -> np.ndarray:
    return (x / 16).astype(np.float32)


def _write(folder: Path) -> None:
    from tasks.datasets.tfrecord import write_silos

    silos, test = _dealt()
    try:
        write_silos(folder, silos, test=test, scale=1 / 16, num_classes=10)
    except OSError as error:
        raise TaskError(
            f"The digits cannot be written to '{folder}' ({error.strerror}): set the environment variable "
            "FEDKERAS_CACHE to a folder that can be written."
        ) from error
    except TaskError:
        if not folder.is_dir():  # else another process was faster, and wrote the same
            raise


def _dealt() -> tuple[dict[str, Part], Part]:
    """Deal the digits to the silos, after holding out a test set."""
    x, y = handwritten_digits()
    generator = np.random.default_rng(_SEED)
    order = generator.permutation(len(y))
    test, train = np.split(order, [round(_TEST_SHARE * len(y))])
    owner = _owners(y[train], generator)
    return {name: (x[train[owner == k]], y[train[owner == k]]) for k, name in enumerate(SILOS)}, (x[test], y[test])


def _owners(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw a silo for each example; each digit has shares of its own."""
    shares = generator.dirichlet([_ALPHA] * len(SILOS), size=10).cumsum(axis=1)
    owners: np.ndarray = (generator.random(len(labels))[:, np.newaxis] > shares[labels, :-1]).sum(axis=1)
    return owners
