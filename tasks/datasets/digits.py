"""The digits that come with scikit-learn: 1,797 images of 8x8 in 17 greys, 10 classes. Needs no file and no network."""

from __future__ import annotations

from tasks.data import ArrayData
from tasks.datasets import DataSpec
from tasks.datasets.federate import federate, labelled_arrays
from tasks.datasets.handwritten import handwritten_digits


def load(argument: str, spec: DataSpec) -> ArrayData:
    """Load the digits as 8x8x1 in [0, 1] and cut them into clients; see `tasks.datasets.load_data`."""
    images, labels = handwritten_digits()
    return federate(spec.dataset, labelled_arrays(images, labels, "digits", scale=1 / 16), None, spec)
