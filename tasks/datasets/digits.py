"""The digits that come with scikit-learn: 1,797 images of 8x8 in 17 greys, 10 classes. Needs no file and no network."""

from __future__ import annotations

import numpy as np

from tasks.data import ArrayData
from tasks.datasets import DataSpec
from tasks.datasets.federate import federate, labelled_arrays


def load(argument: str, spec: DataSpec) -> ArrayData:
    """Load the digits as 8x8x1 in [0, 1] and cut them into clients; see `tasks.datasets.load_data`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., np.newaxis]
    return federate(spec.dataset, labelled_arrays(images, digits.target, "digits", scale=1 / 16), None, spec)
