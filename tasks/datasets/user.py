"""The user's own data: ``module:function``, a function without arguments that returns arrays or federated data.

It returns (x, y); or (x, y, client_ids), where client_ids [n] says whose an example is, for the partition 'natural'; or
an object of its own with all that `tasks.data.FederatedData` names, which is used as it is. Arrays are taken as those
in an npz file: see `tasks.datasets.federate.images_or_numbers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tasks.data import ClientData, FederatedData
from tasks.datasets import DataSpec
from tasks.datasets.federate import federate, images_or_numbers
from tasks.errors import TaskError
from tasks.user_code import load_function

_MEMBERS = (
    *("name", "num_classes", "input_shape", "client_ids"),
    *("num_train", "train", "test", "central_test", "label_counts"),
)


def load(reference: str, spec: DataSpec) -> FederatedData:
    """Call the function and take what it returns. Raises `TaskError`, with the cause chained where it fails."""
    source = f"dataset='{reference}'"
    returned = _returned_by(reference, source)
    if not isinstance(returned, tuple):
        return _federated(returned, source)
    if len(returned) not in (2, 3):
        raise TaskError(
            f"{source}: the function returned {len(returned)} values, but must return (x, y), (x, y, client_ids) or "
            "federated data."
        )
    arrays = images_or_numbers(returned[0], returned[1], source)
    ids = _client_ids(returned[2], len(arrays), source) if len(returned) == 3 else None
    return federate(spec.dataset, arrays, None, spec, natural_ids=ids)


def _returned_by(reference: str, source: str) -> Any:
    try:
        return load_function(reference, "dataset")()
    except TaskError:
        raise
    except Exception as error:  # it is the user's code, which may raise anything
        raise TaskError(
            f"{source}: the function failed with {type(error).__name__}: {error}; it must work without arguments."
        ) from error


def _federated(returned: Any, source: str) -> FederatedData:
    missing = [member for member in _MEMBERS if not hasattr(returned, member)]
    if missing:
        raise TaskError(
            f"{source}: the function returned a {type(returned).__name__}, which is neither (x, y), nor "
            f"(x, y, client_ids), nor federated data, for which it lacks {', '.join(missing)}."
        )
    return _Checked(returned, source)


class _Checked:
    """The user's own `FederatedData` with members of the types that are promised: Python's, not numpy's.

    What does not fit is a TaskError that names the member: at once, or where a method returns it.
    """

    def __init__(self, data: Any, source: str) -> None:
        self._data, self._source = data, source
        self.name = str(data.name)
        self.client_ids = self._ids(data.client_ids)
        self.input_shape = self._shape(data.input_shape)
        self.num_classes = self._whole("num_classes", data.num_classes, 2)

    def num_train(self, client_id: str) -> int:
        """Return the size of a client's training part without loading it."""
        return self._whole(f"num_train('{client_id}')", self._data.num_train(client_id), 1)

    def train(self, client_id: str) -> ClientData:
        """Return a client's training part."""
        return cast(ClientData, self._data.train(client_id))

    def test(self, client_id: str) -> ClientData:
        """Return a client's own test part."""
        return cast(ClientData, self._data.test(client_id))

    def central_test(self) -> ClientData:
        """Return the test set that no client holds."""
        return cast(ClientData, self._data.central_test())

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Return how many training examples of each class each client has, [clients, classes]."""
        counts = np.asarray(self._data.label_counts())
        expected = (len(self.client_ids), self.num_classes)
        if counts.shape != expected or counts.dtype.kind not in "iu":
            raise self._wrong(
                "label_counts()", f"{counts.dtype} {list(counts.shape)}", f"hold whole numbers, {list(expected)}"
            )
        return counts.astype(np.int64)

    def _ids(self, given: Any) -> tuple[str, ...]:
        ids = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (None,)
        if not all(isinstance(client_id, str) and client_id for client_id in ids):
            raise self._wrong("client_ids", given, "be a tuple of strings that are not empty")
        if len(set(ids)) < len(ids):
            raise self._wrong("client_ids", given, "hold no name twice")
        return tuple(map(str, ids))

    def _shape(self, given: Any) -> tuple[int, ...]:
        if not isinstance(given, Sequence | np.ndarray) or isinstance(given, str):
            raise self._wrong("input_shape", given, "be a tuple of whole numbers")
        return tuple(self._whole("input_shape", size, 1) for size in given)

    def _whole(self, member: str, given: Any, least: int) -> int:
        if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < least:
            raise self._wrong(member, given, f"be a whole number of at least {least}")
        return int(given)

    def _wrong(self, member: str, given: Any, must: str) -> TaskError:
        return TaskError(
            f"{self._source}: {member} of what the function returned is {repr(given)[:100]}, but must {must}."
        )


def _client_ids(ids: Any, examples: int, source: str) -> npt.NDArray[np.generic]:
    array = np.asarray(ids)
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat):
        array = array.astype(np.str_)  # a column of strings in pandas
    if array.shape != (examples,) or array.dtype.kind not in "iuU":
        raise TaskError(
            f"{source}: client_ids has dtype {array.dtype} and shape {list(array.shape)}, but must hold a whole number "
            f"or a string for each of the {examples} examples."
        )
    return array
