"""The user's own data: ``module:function``, a function without arguments that returns arrays or federated data.

It returns (x, y); or (x, y, client_ids), where client_ids [n] says whose an example is, for the partition 'natural'; or
an object of its own with all that `tasks.data.FederatedData` names, which is used as it is. Arrays are taken as those
in an npz file: see `tasks.datasets.federate.images_or_numbers`.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tasks.data import FederatedData
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
    return cast(FederatedData, returned)


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
