"""The user's own arrays from an npz file: ``npz:PATH`` or ``npz:PATH?x=KEY&y=KEY&client=KEY&test=KEY``.

Arrays, by default under the keys of the same names:

    x       [n, ...] numbers. uint8 with two or more dimensions per example are images: they are multiplied by
            1/255, and [n, height, width] gets a channel axis. Everything else stays as it is.
    y       [n] whole numbers from 0, in any numeric dtype
    client  [n], optional: whose an example is, a whole number or a string; used by the partition 'natural'
    test    [n], optional: 0/1 or bool, the examples that nobody trains on

The query also takes ``client-names=KEY``, an array of names that whole numbers in ``client`` are indices into, and
``classes=NUMBER`` where not every class occurs in the file. A test mask makes the central test set; with the partition
'natural' each client's masked examples are its own test part as well (as FLamby splits its hospitals: Ogier du Terrail
et al., 2022). With other partitions, and without a mask, ``client_test_fraction`` is cut from each client's examples.
With the partition 'natural' a file without ``client`` is one client, named as the file: a hospital's own file on its
node. A client whose examples are all masked is left out, so a file that is masked as a whole is a test set and nothing
else: what the server of a deployment holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from tasks.data import ArrayData, ClientSplit, FederatedData, LabelledArrays
from tasks.datasets import DataSpec
from tasks.datasets.federate import count_classes, federate, images_or_numbers
from tasks.datasets.npz_file import Array, read_arrays
from tasks.errors import TaskError
from tasks.partition import partition_indices

_QUERY = ("x", "y", "client", "test", "client-names", "classes")
_MOST_CLASSES = 1_000_000

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Location:
    """A file and the keys chosen in it; those that the user wrote must be there."""

    path: Path
    chosen: dict[str, str]
    classes: int | None
    source: str

    def key(self, role: str) -> str:
        return self.chosen.get(role, role)

    def read(self) -> dict[str, Array]:
        """Return the arrays by role: those named, x, y, and by default client and test where they are there."""
        needed = {"x": self.key("x"), "y": self.key("y"), **self.chosen}
        optional = {role: role for role in ("client", "test") if role not in needed}
        arrays = read_arrays(self.path, needed.values(), optional.values(), self.source)
        return {role: arrays[key] for role, key in {**needed, **optional}.items() if key in arrays}


def load(location: str, spec: DataSpec) -> FederatedData:
    """Load ``PATH`` or ``PATH?key=value&...`` and cut it into clients.

    Raises `TaskError`: a sentence on the file, its keys, or what is wrong with the values.
    """
    place = _located(location)
    arrays = place.read()
    examples = images_or_numbers(arrays["x"], arrays["y"], place.source)
    natural = spec.partition.kind == "natural"
    ids = _client_ids(arrays, len(examples), place) if natural else None
    mask = _mask(arrays["test"], len(examples), place.source) if "test" in arrays else None
    if mask is None:
        return federate(spec.dataset, examples, None, spec, ids, place.classes)
    if ids is not None:
        return _own_tests(examples, mask, ids, spec, place)
    held_out, rest = np.flatnonzero(mask), np.flatnonzero(~mask)
    return federate(spec.dataset, _cut(examples, rest), _cut(examples, held_out), spec, None, place.classes)


def _own_tests(examples: LabelledArrays, mask: Mask, ids: Array, spec: DataSpec, place: _Location) -> ArrayData:
    """Split each natural client by the mask; the clients' test parts together are the central test set.

    Whoever has nothing to train on is no client: a file that is all test set is what a server holds in a deployment.
    """
    clients = {
        client_id: ClientSplit(indices[~mask[indices]], indices[mask[indices]])
        for client_id, indices in partition_indices(examples.y, spec.partition, ids).items()
        if not mask[indices].all()
    }
    central = _cut(examples, np.flatnonzero(mask))
    return ArrayData(spec.dataset, examples, central, clients, count_classes(place.source, examples.y, place.classes))


def _located(location: str) -> _Location:
    """Take the location apart; a '?' that no '=' follows belongs to the file's name."""
    source = f"dataset='npz:{location}'"
    file, mark, query = location.rpartition("?")
    if not mark or "=" not in query:
        file, query = location, ""
    chosen = dict(parse_qsl(query, keep_blank_values=True))
    for role, key in chosen.items():
        if role not in _QUERY or not key:
            raise TaskError(f"{source}: '{role}={key}' after the '?' must be one of {', '.join(_QUERY)} with a value.")
    classes = chosen.pop("classes", None)
    if classes is not None and not (classes.isdecimal() and len(classes) < 8 and 2 <= int(classes) <= _MOST_CLASSES):
        raise TaskError(f"{source}: classes={classes}, but must be a whole number from 2 to {_MOST_CLASSES}.")
    try:
        path = Path(file).expanduser()
    except RuntimeError as error:
        raise TaskError(f"{source}: {error}; write the path in full.") from error
    return _Location(path, chosen, None if classes is None else int(classes), source)


def _mask(test: Array, examples: int, source: str) -> Mask:
    if test.shape != (examples,) or test.dtype.kind not in "biuf" or not np.isin(test, (0, 1)).all():
        raise TaskError(
            f"{source}: the test mask has dtype {test.dtype} and shape {list(test.shape)}, but must hold 0 or 1 for "
            f"each of the {examples} examples."
        )
    return test.astype(bool)


def _client_ids(arrays: dict[str, Array], examples: int, place: _Location) -> Array:
    """Return the name of each example's client: as it stands, looked up, or the file's name for all."""
    if "client" not in arrays:
        if "client-names" in place.chosen:
            raise TaskError(f"{place.source}: 'client-names' needs an array 'client' of indices into the names.")
        return np.full(examples, place.path.stem)
    ids = arrays["client"]
    if ids.shape != (examples,) or ids.dtype.kind not in "iuUS":
        raise TaskError(
            f"{place.source}: the array '{place.key('client')}' has dtype {ids.dtype} and shape {list(ids.shape)}, but "
            f"must hold a whole number or a string for each of the {examples} examples."
        )
    if "client-names" in arrays:
        ids = _looked_up(ids, arrays["client-names"], place)
    if ids.dtype.kind == "S":
        ids = _decoded(ids, place)
    if ids.dtype.kind == "U" and (ids == "").any():
        raise TaskError(f"{place.source}: the array '{place.key('client')}' holds an empty name.")
    return ids


def _looked_up(ids: Array, names: Array, place: _Location) -> Array:
    fits = ids.dtype.kind in "iu" and names.ndim == 1 and names.dtype.kind in "US" and len(set(names)) == len(names)
    if not fits or ids.min() < 0 or ids.max() >= len(names):
        raise TaskError(
            f"{place.source}: with 'client-names' the array '{place.key('client')}' must hold indices into "
            f"'{place.key('client-names')}', and that one different strings."
        )
    looked_up: Array = names[ids.astype(np.int64)]
    return looked_up


def _decoded(ids: Array, place: _Location) -> Array:
    try:
        return np.char.decode(ids, "utf-8")
    except UnicodeDecodeError as error:
        raise TaskError(f"{place.source}: the array '{place.key('client')}' holds names that are not UTF-8.") from error


def _cut(arrays: LabelledArrays, indices: npt.NDArray[np.int64]) -> LabelledArrays:
    return LabelledArrays(arrays.x[indices], arrays.y[indices], arrays.scale)
