"""Deals examples to clients by their labels alone, giving index arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["iid", "dirichlet", "pathological", "shards", "quantity", "natural"]


@dataclass(frozen=True)
class Partition:
    """How examples are dealt to clients; the fields are the run-config keys of the same names."""

    kind: Kind = "dirichlet"
    num_clients: int = 50
    dirichlet_alpha: float = 0.5
    classes_per_client: int = 2
    quantity_skew: float = 1.0
    min_examples: int = 2
    seed: int = 0


def partition_indices(
    labels: npt.NDArray[np.integer], partition: Partition, natural_ids: npt.NDArray[np.str_] | None = None
) -> dict[str, npt.NDArray[np.int64]]:
    """Return each client's examples as sorted indices, by client id: "0".."n-1", or the natural ids in order."""
    raise NotImplementedError
