"""The kinds of partition: flwr-datasets' partitioners, applied to labels only.

    iid           shuffled, in parts of equal size (a difference of 1 where they do not divide)
    dirichlet     each class is divided among all clients in proportions drawn from Dirichlet(alpha, ..., alpha), as in
                  Yurochkin et al. 2019, "Bayesian Nonparametric Federated Learning of Neural Networks"
    pathological  each client has exactly ``classes_per_client`` classes, the first of them client number modulo number
                  of classes, the others at random; a class is divided equally among those that have it (Li et al. 2022,
                  "Federated Learning on Non-IID Data Silos", section 4)
    shards        sorted by label, cut into ``num_clients * classes_per_client`` shards of equal size (a difference of
                  1), each client getting ``classes_per_client`` of them at random (McMahan et al. 2017, section 3)
    quantity      shuffled, client k of n getting examples in proportion to (k + 1) ** quantity_skew, k from 0
    natural       whose the examples are

The rows are shuffled first whatever the kind: the partitioners take a class in the order of the rows, which in most
data sets says something about the example (MNIST comes by groups of writers), and flwr-datasets' own IID partitioner
does not shuffle.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.errors import TaskError
from tasks.partition import Ids, Indices, Labels, Partition
from tasks.redeal import CannotFillUpError
from tasks.top_up import top_up

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner


def deal(labels: Labels, partition: Partition, natural_ids: Ids | None) -> dict[str, Indices]:
    """Compute a partition; see `tasks.partition.partition_indices`, which checks the arguments and keeps the result."""
    if natural_ids is not None:
        return _natural(natural_ids, partition.min_examples)
    shuffle_seed, deal_seed, top_up_seed = map(int, np.random.SeedSequence(partition.seed).generate_state(3, np.uint64))
    order = np.random.default_rng(shuffle_seed).permutation(len(labels))
    parts = [order[part] for part in _KINDS[partition.kind](labels[order], partition, deal_seed)]
    parts = _filled_up(parts, labels, partition, top_up_seed)
    return {str(client): np.sort(part) for client, part in enumerate(parts)}


def _iid(labels: Labels, partition: Partition, seed: int) -> list[Indices]:
    # IidPartitioner cuts the rows in the same places, but gives no index mapping: see `_index_mapping`.
    whole, rest = divmod(len(labels), partition.num_clients)
    return _sized([whole + (client < rest) for client in range(partition.num_clients)], labels)


def _quantity(labels: Labels, partition: Partition, seed: int) -> list[Indices]:
    # Not IdToSizeFncPartitioner: it refuses sizes that round to 0, which are filled up here.
    shares = (np.arange(1, partition.num_clients + 1) / partition.num_clients) ** partition.quantity_skew
    ends = np.rint(len(labels) * np.cumsum(shares) / shares.sum()).astype(np.int64)
    ends[-1] = len(labels)
    return _sized(np.diff(ends, prepend=0).tolist(), labels)


def _sized(sizes: Sequence[int], labels: Labels) -> list[Indices]:
    from flwr_datasets.partitioner import SizePartitioner

    partitioner = SizePartitioner([size for size in sizes if size > 0])  # it refuses 0
    partitioner.dataset = _rows(labels)
    mapping = iter(partitioner.partition_id_to_indices.values())
    return [_indices(next(mapping) if size > 0 else []) for size in sizes]


def _dirichlet(labels: Labels, partition: Partition, seed: int) -> list[Indices]:
    from flwr_datasets.partitioner import DirichletPartitioner

    # min_partition_size=0: it would draw anew ten times and then give up; small clients are filled up here.
    partitioner = DirichletPartitioner(
        partition.num_clients, "label", float(partition.dirichlet_alpha), min_partition_size=0, shuffle=False, seed=seed
    )
    return _index_mapping(partitioner, labels)


def _pathological(labels: Labels, partition: Partition, seed: int) -> list[Indices]:
    from flwr_datasets.partitioner import PathologicalPartitioner

    each, clients = partition.classes_per_client, partition.num_clients
    if each > (classes := len(np.unique(labels))):
        raise TaskError(
            f"classes-per-client={each} with partition='pathological' is more than the {classes} classes in the "
            "labels: lower 'classes-per-client'."
        )
    partitioner = PathologicalPartitioner(clients, "label", each, "first-deterministic", shuffle=False, seed=seed)
    try:
        return _index_mapping(partitioner, labels)
    except ValueError as error:
        raise TaskError(
            f"partition='pathological' with num-clients={clients} and classes-per-client={each}: some class has fewer "
            "examples than clients that are to hold it: lower 'num-clients' or 'classes-per-client'."
        ) from error


def _shards(labels: Labels, partition: Partition, seed: int) -> list[Indices]:
    from flwr_datasets.partitioner import ShardPartitioner

    each, shards = partition.classes_per_client, partition.classes_per_client * partition.num_clients
    if shards > len(labels):
        raise TaskError(
            f"classes-per-client={each} with partition='shards' and num-clients={partition.num_clients} needs {shards} "
            f"shards, but there are only {len(labels)} examples to train on: lower 'classes-per-client' or "
            "'num-clients'."
        )
    # The partitioner's own shards all have the same size, and it drops the rest of the examples. So the examples are
    # cut here, and it deals shards: its rows are shard numbers, and a shard of its own is one row.
    examples = np.array_split(np.argsort(labels, kind="stable"), shards)
    partitioner = ShardPartitioner(partition.num_clients, "label", each, shard_size=1, shuffle=False, seed=seed)
    dealt = _index_mapping(partitioner, np.arange(shards))
    return [np.concatenate([examples[shard] for shard in part]) for part in dealt]


_KINDS: dict[str, Callable[[Labels, Partition, int], list[Indices]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "pathological": _pathological,
    "shards": _shards,
    "quantity": _quantity,
}


def _natural(natural_ids: Ids, least: int) -> dict[str, Indices]:
    from flwr_datasets.partitioner import NaturalIdPartitioner

    partitioner = NaturalIdPartitioner("label")
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be switched off
        parts = _index_mapping(partitioner, natural_ids)
    ids = map(str, partitioner.partition_id_to_natural_id.values())
    kept = {client: part for client, part in zip(ids, parts, strict=True) if len(part) >= least}
    if not kept:
        raise TaskError(
            f"min-client-examples={least} is more than any client of the data set has: lower 'min-client-examples' to "
            f"{max(map(len, parts))} or less."
        )
    return kept


def _rows(column: Ids) -> Any:
    """Return a Hugging Face Dataset of one column; in Arrow's format, which is read 20 times faster than Python's."""
    import datasets

    return datasets.Dataset.from_dict({"label": column}).with_format("arrow")


def _index_mapping(partitioner: Partitioner, column: Ids) -> list[Indices]:
    """Apply a partitioner to a column and return each partition's row numbers.

    The public way to them, a column of row numbers and ``load_partition`` for each client, makes a Dataset per client:
    8 to 14 s for 10,000 clients, and minutes with natural ids. The mapping is there once the first has been loaded.
    """
    partitioner.dataset = _rows(column)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they speak of arguments that users do not see
        partitioner.load_partition(0)
    mapping: dict[int, Iterable[int]] = partitioner._partition_id_to_indices
    return [_indices(mapping[client]) for client in range(len(mapping))]


def _indices(rows: Iterable[int]) -> Indices:
    return np.fromiter(rows, np.int64)


def _filled_up(parts: list[Indices], labels: Labels, partition: Partition, seed: int) -> list[Indices]:
    """Bring every client to ``min_examples``; with 'pathological' only with examples of classes that it has."""
    pool_of, open_pools = np.zeros(len(labels), np.int64), [[0]] * len(parts)
    if partition.kind == "pathological":
        pool_of = labels.astype(np.int64)
        open_pools = [np.unique(pool_of[part]).tolist() for part in parts]
    try:
        return top_up(parts, pool_of, open_pools, partition.min_examples, seed)
    except CannotFillUpError as error:
        raise TaskError(
            f"partition='{partition.kind}' with num-clients={partition.num_clients} cannot give client "
            f"'{error.client}' min-client-examples={partition.min_examples} examples of its "
            f"classes-per-client={partition.classes_per_client} classes: lower 'num-clients' or 'min-client-examples'."
        ) from error
