"""FEMNIST: handwritten digits and letters by writer, 62 classes, 28x28; from the Hugging Face Hub by flwr-datasets.

Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings". Naturally federated: a client is a writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.data import ArrayData
from tasks.datasets import DataSpec
from tasks.datasets.federate import federate, images_or_numbers
from tasks.errors import TaskError

if TYPE_CHECKING:
    from datasets import Dataset

HUB_NAME = "flwrlabs/femnist"
CLASSES = 62


def load(argument: str, spec: DataSpec) -> ArrayData:
    """Load the images as 28x28x1 in [0, 1]; the partition 'natural' makes each writer a client.

    All images are decoded into one uint8 array (814,277 of them: 640 MB). Raises `TaskError` where they are neither
    cached nor can be downloaded.
    """
    rows = _rows()
    arrays = images_or_numbers(_pixels(rows), np.asarray(rows["character"][:]), spec.dataset)
    writers = np.asarray(rows["writer_id"][:]).astype(np.str_)
    return federate(spec.dataset, arrays, None, spec, natural_ids=writers, num_classes=CLASSES)


def _rows() -> Dataset:
    import datasets
    from flwr_datasets import FederatedDataset
    from flwr_datasets.partitioner import NaturalIdPartitioner

    partitioners = {"train": NaturalIdPartitioner("writer_id")}
    try:
        return FederatedDataset(dataset=HUB_NAME, partitioners=partitioners, shuffle=False).load_split("train")
    except Exception as error:  # of datasets, huggingface_hub, their HTTP client or the network
        raise TaskError(
            f"dataset='femnist' ({HUB_NAME} on the Hugging Face Hub) is neither cached in "
            f"{datasets.config.HF_DATASETS_CACHE} nor can it be downloaded ({type(error).__name__}: {error}): connect "
            "to the internet once, set HF_HOME to a folder that holds it, or choose another 'dataset'."
        ) from error


def _pixels(rows: Dataset) -> npt.NDArray[np.uint8]:
    pixels = np.empty((len(rows), 28, 28), np.uint8)
    for index, image in enumerate(rows["image"]):
        pixels[index] = np.asarray(image.convert("L"))
    return pixels
