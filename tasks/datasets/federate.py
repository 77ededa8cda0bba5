"""Turns arrays into federated data: checks the labels, holds out a central test set, cuts the rest into clients."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from tasks.data import ArrayData, LabelledArrays, split_client
from tasks.datasets import DataSpec
from tasks.errors import TaskError
from tasks.partition import partition_indices

_LARGEST_LABEL = np.iinfo(np.int32).max - 1


def labelled_arrays(x: npt.ArrayLike, y: npt.ArrayLike, source: str, scale: float = 1.0) -> LabelledArrays:
    """Check examples and labels, and keep ``x`` as it is stored (float64 as float32).

    ``y`` holds whole numbers from 0 in any numeric dtype, shape [n] or [n, 1]; ``source`` starts the error sentences,
    as in ``dataset='npz:a.npz'``. Raises `TaskError`.
    """
    examples = _checked_x(_array(x, "x", source), source)
    return LabelledArrays(examples, _checked_y(_array(y, "y", source), examples.shape[:1], source), scale)


def images_or_numbers(x: npt.ArrayLike, y: npt.ArrayLike, source: str) -> LabelledArrays:
    """Check a user's arrays as `labelled_arrays` does, and see images for what they are.

    uint8 with two or more dimensions per example are images: scaled by 1/255, [n, height, width] gets a channel axis.
    """
    x = _array(x, "x", source)
    if x.dtype != np.uint8 or x.ndim < 3:
        return labelled_arrays(x, y, source)
    return labelled_arrays(x[..., np.newaxis] if x.ndim == 3 else x, y, source, scale=1 / 255)


def federate(
    name: str,
    arrays: LabelledArrays,
    central: LabelledArrays | None,
    spec: DataSpec,
    natural_ids: npt.NDArray[np.generic] | None = None,
    num_classes: int | None = None,
) -> ArrayData:
    """Cut arrays into clients as ``spec.partition`` says, and each client's examples into train and test.

    Without ``central``, ``spec.test_fraction`` of the examples is held out at random (by ``spec.seed``) before the
    clients are cut; a client that the partition 'natural' names keeps at least one. ``natural_ids`` [n], whole numbers
    or strings, names the client of each example. ``num_classes`` is counted from the labels where it is not given.
    Raises `TaskError`.
    """
    labels = arrays.y if central is None else np.concatenate([arrays.y, central.y])
    num_classes = count_classes(f"dataset='{name}'", labels, num_classes)
    indices = np.arange(len(arrays))
    if central is None:
        indices, held_out = _hold_out(len(arrays), natural_ids if spec.partition.kind == "natural" else None, spec)
        central = LabelledArrays(arrays.x[held_out], arrays.y[held_out], arrays.scale)
    if len(indices) == 0:
        raise TaskError(f"dataset='{name}' has no examples to train on: check the file or lower 'test-fraction'.")
    parts = partition_indices(arrays.y[indices], spec.partition, None if natural_ids is None else natural_ids[indices])
    clients = {
        client_id: split_client(indices[part], client_id, spec.client_test_fraction, spec.seed)
        for client_id, part in parts.items()
    }
    return ArrayData(name, arrays, central, clients, num_classes)


def _array(values: npt.ArrayLike, name: str, source: str) -> npt.NDArray[np.generic]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise TaskError(f"{source}: {name} is no array, its rows differ in shape ({error}).") from error


def _checked_x(x: npt.NDArray[np.generic], source: str) -> npt.NDArray[np.generic]:
    if x.dtype.kind not in "buif" or x.ndim < 2 or 0 in x.shape[1:]:
        raise TaskError(
            f"{source}: x has dtype {x.dtype} and shape {list(x.shape)}, but must be an array of real numbers with "
            "one example per row, [examples, ...]."
        )
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # told below
            x = x.astype(np.float32, copy=False)
        bad = ~np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
        if bad.any():
            raise TaskError(
                f"{source}: x is NaN or infinite (as float32) in {int(bad.sum())} of {len(x)} examples, first in "
                f"example {int(bad.argmax())}: fill in or remove those examples."
            )
    return x


def _checked_y(y: npt.NDArray[np.generic], examples: tuple[int, ...], source: str) -> npt.NDArray[np.int32]:
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != examples:
        raise TaskError(
            f"{source}: y has shape {list(y.shape)}, but must hold one label for each of the {examples[0]} examples "
            "in x."
        )
    if y.dtype.kind not in "buif":
        raise TaskError(f"{source}: y has dtype {y.dtype}, but labels must be whole numbers from 0.")
    numbers = y.astype(np.float64)  # exact for every label that is allowed
    wrong = ~((numbers >= 0) & (numbers <= _LARGEST_LABEL) & (numbers == np.floor(numbers)))
    if wrong.any():
        raise TaskError(
            f"{source}: y holds {y[wrong][0].item()!r} (example {int(wrong.argmax())}), but labels must be whole "
            "numbers from 0."
        )
    return y.astype(np.int32)


def count_classes(source: str, labels: npt.NDArray[np.int32], num_classes: int | None) -> int:
    """Return the number of classes: as given, or one more than the largest label, at least 2.

    ``source`` starts the error sentences. Raises `TaskError` for labels that the number given, or any, cannot explain.
    """
    largest = int(labels.max(initial=0))
    if num_classes is not None and largest >= num_classes:
        raise TaskError(f"{source}: y holds the label {largest}, but there are only {num_classes} classes.")
    if num_classes is None and largest >= max(len(labels), 2):
        raise TaskError(
            f"{source}: y holds the label {largest} with only {len(labels)} examples: number the classes from 0 "
            "without gaps."
        )
    return max(largest + 1, 2) if num_classes is None else num_classes


def _hold_out(
    examples: int, natural_ids: npt.NDArray[np.generic] | None, spec: DataSpec
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw the examples of the central test set; return (the others, those), each sorted."""
    digest = hashlib.sha256(f"{spec.seed}/central-test".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    held_out = np.zeros(examples, bool)
    held_out[random.permutation(examples)[: round(spec.test_fraction * examples)]] = True
    if natural_ids is not None and examples:
        _, client = np.unique(natural_ids, return_inverse=True)
        kept = np.bincount(client[~held_out], minlength=client.max() + 1)
        first = np.unique(client, return_index=True)[1]
        held_out[first[kept == 0]] = False
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
